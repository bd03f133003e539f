"""The demo, and what can be measured of any space.

`measures` evaluate a space by itself: its samples, components and directions. The demo and the
paper's experiments (in `experiments/` of the repository) work in a `Setting`: a base, a space, and
drawn people whose identity and attributes are known.
"""

from .demo import demo
from .measures import MEASURES
from .samples import SampleReport, report_samples
from .setting import Setting

__all__ = ["MEASURES", "SampleReport", "Setting", "demo", "report_samples"]
