"""JupyterLab as people open it: a server over a folder, a notebook in a browser, and its faults."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import checks
import folds
import setup_cell
from playwright.sync_api import Browser

TOOLS = setup_cell.ROOT / "tools"
SETTINGS = {  # written for the server: no pop-up with news, and no cell left out while out of sight
    "labconfig/page_config.json": {
        "disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}
    },
    "lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {
        "windowingMode": "none"
    },
}
OPEN = """async path => {
    const app = window.jupyterapp;
    await app.started;
    await app.restored;
    const panel = await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
    await panel.revealed;
    await panel.context.ready;
    await panel.sessionContext.ready;
    window.panel = panel;
}"""
RUN = "async () => await window.jupyterapp.commands.execute('notebook:run-all-cells')"
CELLS = """() => window.panel.content.widgets.map(cell => ({
    id: cell.model.id,
    cell_type: cell.model.type,
    source: cell.model.sharedModel.getSource(),
    metadata: cell.model.sharedModel.toJSON().metadata,
    hidden: cell.inputHidden,
    code: [...cell.node.querySelectorAll('.cm-content')].some(e => e.checkVisibility()),
    outputs: cell.model.outputs ? cell.model.outputs.toJSON() : [],
    drawn: [...cell.node.querySelectorAll(['svg[role=img]', 'img', '.ml-live']
        .map(one => `.jp-OutputArea ${one}`).join())].filter(e => !e.closest('.ml-lab'))
        .filter(e => e.checkVisibility() && e.getBoundingClientRect().width > 50).length,
}))"""
# The text of each rendered cell without code and formulas, and what went wrong in it.
TEXTS = r"""() => window.panel.content.widgets.filter(cell => cell.model.type === 'markdown')
.map(cell => {
    const shown = cell.node.querySelector('.jp-RenderedMarkdown');
    const faults = [];
    if (!shown) return {id: cell.model.id, text: '', faults: ['not rendered']};
    for (const e of shown.querySelectorAll('mjx-container *'))  // an unknown macro stands in red
        if (e.matches('mjx-merror') || getComputedStyle(e).color === 'rgb(255, 0, 0)')
            faults.push('formula: ' + e.parentElement.outerHTML.slice(0, 90));
    for (const e of shown.querySelectorAll('details'))
        if (e.open) faults.push('open: ' + e.textContent.trim().slice(0, 60));
    for (const e of shown.querySelectorAll('a[href^="#"]')) {
        const id = decodeURIComponent(e.getAttribute('href').slice(1));
        const ids = ['id', 'data-jupyter-id'].map(name => `[${name}="${CSS.escape(id)}"]`);
        if (!window.panel.node.querySelector(ids.join())) faults.push('dead link: #' + id);
    }
    const copy = shown.cloneNode(true);
    for (const e of copy.querySelectorAll('code, pre, mjx-container, .MathJax')) e.remove();
    return {id: cell.model.id, text: copy.textContent, faults};
})"""
LINKS = """() => [...window.panel.node.querySelectorAll('.jp-Cell a[href]')].map(e => e.href)"""
RAW = re.compile(  # what another renderer would read, and JupyterLab shows as it stands
    r"""\{[a-z]+(:[a-z]+)?\}"""  # a role or a directive: {cite:p}, {eq}, {note}
    r"""|\(eq-[\w-]+\)"""  # the label of an equation
    r"""|\{\#|^:{3}|\$\$|\\begin\{|\\label|\\\(|\\\[""",
    re.M,
)
PATIENCE = 20.0  # seconds until everything is drawn; the machine may be busy


@contextmanager
def server(folder: Path, work: Path) -> Iterator[str]:
    """A JupyterLab over a folder, with no setting of the person's own; yields its address."""
    for name, content in SETTINGS.items():
        path = work / "config" / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    leaks = ("JUPYTER", "IPYTHON", "PYTHON", "MPL")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(leaks)}
    kept |= {
        "HOME": str(work),
        "JUPYTER_CONFIG_DIR": str(work / "config"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (TOOLS / "offline", TOOLS, setup_cell.ROOT))),
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(str(Path(sys.executable).with_name("jupyter-lab")), "--no-browser", "--allow-root"),
        *("--ip=127.0.0.1", f"--port={port}", "--port-retries=0", "--IdentityProvider.token="),
        *(f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"),
    ]
    log = work / "log"
    with log.open("w") as said:
        process = subprocess.Popen(command, env=kept, stdout=said, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _wait(base: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until the server answers."""
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{base}/api/status", timeout=5).close()
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"JupyterLab did not start: {log.read_text()[-2000:]}")


@contextmanager
def notebook(browser: Browser, base: str, name: str) -> Iterator[tuple[checks.Visit, bool]]:
    """Opens a notebook in a workspace of its own and runs all cells; says whether all ran."""
    with checks.visit(browser, base, f"lab/workspaces/{name}") as one:
        one.page.wait_for_function("window.jupyterapp")
        one.page.evaluate(OPEN, f"{name}.ipynb")
        try:
            yield one, one.page.evaluate(RUN)
        finally:  # else the next visit would be given this session
            one.page.evaluate("async () => { await window.panel.sessionContext.shutdown() }")


def results(one: checks.Visit) -> list[str]:
    """No cell ends in an error or a warning, and every picture that it shows is drawn."""
    found, pictures, wanted = [], 0, False
    for cell in one.page.evaluate(CELLS):
        wanted |= any(
            f"teaching.{show}(" in cell["source"] for show in ("show", "animate", "explore")
        )
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                found.append(f"{cell['id']}: {output['ename']}: {output['evalue'][:200]}")
            elif output.get("name") == "stderr":
                found.append(f"{cell['id']}: {''.join(output['text'])[:200]}")
        shown = sum(map(_pictures, cell["outputs"]))
        pictures += shown
        if cell["drawn"] < shown:
            found.append(f"{cell['id']}: {shown} pictures, {cell['drawn']} drawn")
    return [*found, "no picture at all"] if wanted and not pictures else found


def _pictures(output: dict[str, Any]) -> int:
    """How many pictures an output shows at once."""
    data = output.get("data", {})
    html = "".join(data.get("text/html", ""))
    return html.count("<figure") + ("image/png" in data)


def folded(one: checks.Visit) -> list[str]:
    """The code that the tags fold is out of sight, and all other code is seen."""
    found = []
    for cell in one.page.evaluate(CELLS):
        wanted = bool(folds.folds(cell))
        if cell["cell_type"] == "code" and (cell["hidden"], cell["code"]) != (wanted, not wanted):
            found.append(f"{cell['id']}: {'open' if cell['code'] else 'folded'}")
    return found


def text(one: checks.Visit) -> list[str]:
    """No syntax of another renderer, undrawn formula, open solution or dead link is in the text."""
    end = time.monotonic() + PATIENCE
    while found := _text(one):  # formulas are drawn after the text
        if time.monotonic() > end:
            return found
        one.page.wait_for_timeout(200)
    return []


def _text(one: checks.Visit) -> list[str]:
    found = checks.math(one)  # in quizzes
    for cell in one.page.evaluate(TEXTS):
        raw = (f"raw: {match[0]!r}" for match in RAW.finditer(cell["text"]))
        found += [f"{cell['id']}: {fault}" for fault in [*cell["faults"], *raw]]
    return found


def links(one: checks.Visit) -> list[str]:
    """Every link to a file of the book, in the text or in a quiz, leads to one."""
    own = [href for href in one.page.evaluate(LINKS) if href.startswith(one.base)]
    found = sorted({href.partition("#")[0] for href in own})  # with the token that the server asks
    asked = ((href.partition("?")[0], one.page.request.get(href).status) for href in found)
    return [f"dead link: {href}: {status}" for href, status in asked if status != 200]


GATES = (checks.requests, checks.errors, results, folded, links, text)
