"""Experiments: the paper's tables and figures, and how the embedded world was made.

`python -m experiments --help` lists the tables and figures. Each has one module and one function of
its name: `table1(setting, …) -> Result`. An `ExperimentSetting` is what it is measured on, a
`Result` its figures, tables and images. `experiments.world` trains the embedded world.

Figures of the drawn world are not those of the paper's world: what can be compared is the ranking
of methods and the trends, which every experiment states as `checks`, together with aims of this
project.

Source: Dravid et al. 2024, arXiv:2406.09413.
"""
