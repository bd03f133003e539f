"""Two-alternative forced choice: which of two methods people prefer (paper, tables 3 and 6).

`make_study` writes one web page of pairs and a key; raters open the page and send the file that it
saves; `analyse_study` reads their files.
"""

from ._analyse import analyse_study as analyse_study
from ._make import make_study as make_study
