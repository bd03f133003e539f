"""The paper's tables and figures on any space of a drawn world, and the demo.

One module and one function per item: `table1(setting, …) -> Result`. A `Setting` is what it is
measured on, a `Result` its figures, tables and images. `evaluate` runs items by name and writes
each as JSON + PNG, and all of a folder as one page.

    open_setting → Setting → item → Result → write_result → write_report

No figure of a drawn world is one of the paper's: what can be compared is which method is ahead and
how a figure rises or falls, which every item states as `checks`, beside aims of this project.

Source: Dravid et al. 2024, arXiv:2406.09413.
"""

from ._items import ITEMS, WITHOUT_PEOPLE, evaluate
from ._plots import require_matplotlib
from ._report import Result, Sheet, Stored, Table
from ._setting import HeldOut, Setting, open_setting, train_held_out

__all__ = [
    "ITEMS",
    "WITHOUT_PEOPLE",
    "HeldOut",
    "Result",
    "Setting",
    "Sheet",
    "Stored",
    "Table",
    "evaluate",
    "open_setting",
    "require_matplotlib",
    "train_held_out",
]
