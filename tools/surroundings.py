"""What of a person's machine reaches the processes that the build starts: as little as can be.

Another kernel on `JUPYTER_PATH`, a start-up file of IPython, a matplotlibrc in the home folder,
options in `PYTEST_ADDOPTS`: none of them may change a page. The settings that stay are those that
a person means for the book, such as `MEMLIB_DATA`.
"""

from __future__ import annotations

import getpass
import os
from pathlib import Path

LEAKS = (  # beginnings of names
    *("PYTHON", "PYTEST", "PY_", "NBMAKE", "COVERAGE", "JUPYTER", "IPYTHON", "IPYKERNEL", "MPL"),
    *("SPHINX", "DOCUTILS", "LC_", "LANG", "COLUMNS", "LINES", "VIRTUAL_ENV", "CONDA", "TORCH"),
    *("PYTORCH", "MEMLIB_BOOK", "SOURCE_DATE_EPOCH", "PYDEVD"),
)


def clean(scratch: Path) -> dict[str, str]:
    """The environment of what the build starts; `scratch` takes what would go to the home folder.

    Raises:
        OSError: the scratch folder cannot be made.
    """
    own = {
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "jupyter",
        "JUPYTER_DATA_DIR": "jupyter-data",
        "JUPYTER_RUNTIME_DIR": "jupyter-run",
        "MPLCONFIGDIR": "matplotlib",
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
    }
    for folder in own.values():
        (scratch / folder).mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(LEAKS)}
    return {
        **kept,
        **_person(kept, scratch),
        **{name: str(scratch / folder) for name, folder in own.items()},
        "JUPYTER_NO_CONFIG": "1",
        "LC_ALL": "C.UTF-8",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",  # whatever the locale
    }


def _person(kept: dict[str, str], scratch: Path) -> dict[str, str]:
    """A home and a name for a user who has none: many packages ask for one as they are imported."""
    person = {}
    if not os.access(kept.get("HOME", ""), os.W_OK | os.X_OK):
        home = scratch / "home"
        home.mkdir(parents=True, exist_ok=True)
        person["HOME"] = str(home)
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        person["USER"] = person["LOGNAME"] = "reader"
    return person
