"""Never silent for long: a progress bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm as bar_of_tqdm

SILENCE = 20.0  # seconds between two lines


class Heart(threading.Thread):
    """Calls a function every so many seconds until it is stopped."""

    def __init__(self, beat: Callable[[], None], seconds: float) -> None:
        super().__init__(daemon=True)
        self.beat, self.seconds, self.ended = beat, seconds, threading.Event()

    def run(self) -> None:
        """Beats."""
        while not self.ended.wait(self.seconds):
            self.beat()

    def stop(self) -> None:
        """Ends it; no beat comes after this returns."""
        self.ended.set()
        if self.is_alive():
            self.join()


class tqdm(bar_of_tqdm):  # type: ignore[misc] # noqa: N801 - it stands in the place of the other
    """tqdm as it is on a terminal; elsewhere one line at the start, one every `SILENCE`, one last.

    Only where `disable` is None, which of itself means silence where there is no terminal.
    """

    open = 0  # how many are drawn or told just now

    def __init__(self, *args: Any, disable: bool | None = None, **options: Any) -> None:
        """Takes what tqdm takes."""
        self.heart: Heart | None = None
        self.plain = disable is None and not (options.get("file") or sys.stderr).isatty()
        super().__init__(*args, disable=False if self.plain else disable, **options)
        tqdm.open += not self.disable
        if self.plain:
            self.tell()
            self.heart = Heart(self.tell, SILENCE)
            self.heart.start()

    def tell(self) -> None:
        """Prints where it stands, as one line."""
        print(str(self).strip(), file=self.fp, flush=True)

    def display(self, *args: Any, **options: Any) -> bool | None:
        """Draws the bar, where a terminal looks on."""
        return None if self.plain else super().display(*args, **options)

    def clear(self, *args: Any, **options: Any) -> None:
        """Makes room for a line of text, where a terminal looks on."""
        if not self.plain:
            super().clear(*args, **options)

    def close(self) -> None:
        """Ends the bar, with a last line; a second call does nothing."""
        if not self.disable:
            tqdm.open -= 1
            if self.heart is not None:
                self.heart.stop()
                self.tell()
        if self.plain:
            self.leave = False  # else an empty line follows
        super().close()


@contextmanager
def never_silent(name: str) -> Iterator[None]:
    """Say now and then that something is still at work, as long as no bar says more."""
    began = time.monotonic()

    def tell() -> None:
        if not tqdm.open:
            seconds = time.monotonic() - began
            print(f"{name}: at work for {seconds:.0f} s", file=sys.stderr, flush=True)

    heart = Heart(tell, SILENCE)
    heart.start()
    try:
        yield
    finally:
        heart.stop()
