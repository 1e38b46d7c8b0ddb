"""What Python hands to the page: the joined script, packed weights, an explorable's HTML."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from memlib import teaching
from memlib.teaching.explore import byte_rows, explore_html, half, pack
from memlib.teaching.explore.join import JS, constant, join, styles


def store(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        path = folder / f"{name.replace('__', '/')}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


class TestJoin:
    def test_a_module_comes_after_what_it_imports_and_once(self, tmp_path: Path) -> None:
        root = store(
            tmp_path,
            a="export const A = 1;\n",
            b='import { A } from "./a.js";\nexport const B = A;\n',
            pages__c='import { A as one } from "../a.js";\nimport {\n  B,\n} from "../b.js";\n'
            "export function c() {\n  return one + B;\n}\n",
        )
        script = join("pages/c.js", "b.js", root=root)
        assert re.findall(r"^const (\$\w+) = ", script, flags=re.M) == ["$a", "$b", "$pages_c"]
        assert "const { A: one } = $a;" in script
        assert "const { B } = $b;" in script
        assert "return { c };" in script
        assert "import" not in script
        assert "export" not in script

    def test_a_page_carries_only_what_it_uses(self, tmp_path: Path) -> None:
        root = store(tmp_path, a="export const A = 1;\n", b="export const B = 2;\n")
        assert "$b" not in join("a.js", root=root)

    def test_every_form_of_export(self, tmp_path: Path) -> None:
        text = (
            "export function a() {}\nexport async function b() {}\nexport class C {}\n"
            "export const d = 1;\nexport function* e() {}\n"
        )
        assert "return { a, b, C, d, e };" in join("m.js", root=store(tmp_path, m=text))

    def test_comments_go_and_texts_stay(self, tmp_path: Path) -> None:
        text = (
            '/** A\n * b. */\n// gone\nexport const a = "// kept"; // kept\n  // gone too\n'
            "const b =\n  /** @type {kept} */ (a);\n/** @type {gone} */\n"
        )
        script = join("m.js", root=store(tmp_path, m=text))
        assert script.count("kept") == 3
        assert "(a);" in script
        assert "gone" not in script

    @pytest.mark.parametrize(
        "text",
        [
            "export default 1;",
            "export { a };",
            'export * from "./a.js";',
            'import a from "./a.js";',
            'import * as a from "./a.js";',
            'import "./a.js";',
            'const a = await import("./a.js");',
            'const a = "</script>";',
            'const a = "<!--";',
        ],
    )
    def test_another_form_is_refused_by_name(self, text: str, tmp_path: Path) -> None:
        root = store(tmp_path, m=text + "\n", a="export const a = 1;\n")
        with pytest.raises(ValueError, match=r"^m\.js: this form is not joined: .*[\w<]"):
            join("m.js", root=root)

    def test_a_circle_is_refused(self, tmp_path: Path) -> None:
        root = store(
            tmp_path,
            a='import { B } from "./b.js";\nexport const A = B;\n',
            b='import { A } from "./a.js";\nexport const B = A;\n',
        )
        with pytest.raises(ValueError, match=r"in a circle: a\.js > b\.js > a\.js"):
            join("a.js", root=root)

    def test_a_module_brings_the_style_beside_it(self, tmp_path: Path) -> None:
        root = store(tmp_path, a="export const A = 1;\n", b='import { A } from "./a.js";\n')
        (tmp_path / "a.css").write_text(".a\n  .b {\n  color: red;\n}\n")
        assert styles("b.js", root=root) == ".a .b { color: red; } "
        assert styles("a.js", root=root) == styles("b.js", root=root)

    def test_a_module_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"none\.js"):
            join("none.js", root=tmp_path)

    @pytest.mark.parametrize("path", sorted(JS.rglob("*.js")), ids=lambda p: p.stem)
    def test_the_engines_modules_are_small_and_joined(self, path: Path) -> None:
        assert len(path.read_text(encoding="utf-8").splitlines()) < 250
        name = path.relative_to(JS).as_posix()
        assert f"const {constant(name)} = " in join(name)


class TestWeights:
    def test_half_precision_is_torchs(self) -> None:
        tensor = torch.tensor([[1.0, -0.1], [6e-8, 65504.0]])
        packed = half(tensor)
        back = np.frombuffer(base64.b64decode(packed["half"]), dtype="<f2").reshape(packed["shape"])
        assert (back == tensor.half().numpy()).all()

    def test_what_half_precision_cannot_hold_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"big must fit half precision .*; got 70000"):
            half(torch.tensor([1.0, 7e4]), "big")

    def test_a_checkpoint_with_its_metadata(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        about = {"about": json.dumps({"seed": 3}), "words": "plain"}
        save_file({"b": torch.zeros(2, 3), "a": torch.ones(1)}, path, metadata=about)
        packed = pack(path)
        assert packed["metadata"] == {"about": {"seed": 3}, "words": "plain"}
        assert {name: t["shape"] for name, t in packed["tensors"].items()} == {
            "a": [1],
            "b": [2, 3],
        }

    def test_the_metadata_come_in_one_order(self, tmp_path: Path) -> None:
        names = list("hgfedcba")
        save_file({}, tmp_path / "a.safetensors", metadata=dict.fromkeys(names, "1"))
        assert list(pack(tmp_path / "a.safetensors")["metadata"]) == sorted(names)

    def test_rows_of_bytes(self) -> None:
        matrix = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
        matrix[1] = 0
        packed = byte_rows(matrix)
        whole = np.frombuffer(base64.b64decode(packed["bytes"]), dtype=np.int8).reshape(5, 7)
        scale = np.frombuffer(base64.b64decode(packed["scale"]["half"]), dtype="<f2")
        worst = np.abs(whole * scale[:, None].astype(float) - matrix.numpy()).max(1)
        assert (worst <= matrix.abs().amax(1).numpy() / 127).all()

    @pytest.mark.parametrize("matrix", [torch.zeros(3), torch.tensor([[torch.nan]])])
    def test_rows_of_something_else_are_refused(self, matrix: torch.Tensor) -> None:
        with pytest.raises(ValueError, match="matrix must be finite"):
            byte_rows(matrix)


class TestExplore:
    def test_html_stands_alone(self) -> None:
        html = explore_html("intro", "<p>first</p>", keys=torch.eye(2), text="</script>", n=[1, 2])
        assert '<div class="ml-first"><p>first</p></div>' in html
        data = re.search(r'class="ml-data">(.*?)</script>', html)
        assert data is not None
        given = json.loads(data[1])
        assert given == {"keys": [[1.0, 0.0], [0.0, 1.0]], "text": "</script>", "n": [1, 2]}
        assert html.count("</script>") == 2
        assert 'id="explore-intro"' in html
        assert "Try it: Ask the fruit memory" in html

    def test_shown_once_and_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import matplotlib.pyplot as plt

        from memlib.teaching import explore as package  # the function; its module is below it

        shown: list[tuple[str, str]] = []
        module = package.__globals__
        monkeypatch.setitem(module, "display_html", lambda html, plain: shown.append((html, plain)))
        fig, _ = teaching.figure()
        alt = "A lemon has most of the weight."
        teaching.explore("intro", fig, alt, fruit=["lemon"])
        assert not plt.fignum_exists(fig.number)
        assert shown[0][1] == alt
        assert 'id="explore-intro-first"' in shown[0][0]

    def test_what_a_page_cannot_be_given(self) -> None:
        with pytest.raises(TypeError, match=r"data must be .*; got <class 'set'>"):
            explore_html("intro", "", odd={1})

    def test_one_that_is_not_there(self) -> None:
        with pytest.raises(FileNotFoundError):
            explore_html("none", "")

    def test_no_alt_text(self) -> None:
        fig, _ = teaching.figure()
        with pytest.raises(ValueError, match="alt must state the finding"):
            teaching.explore("intro", fig, "short")
