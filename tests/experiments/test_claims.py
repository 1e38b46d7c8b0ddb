"""Published claims beside ours: the rules of a verdict, what the table must hold, `reproduce`."""

import ast
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import ratios
from experiments import claims, records, reproduce, verify

BOOK = records.ROOT / "book"
TABLE = json.loads((records.RESULTS / "published_claims.json").read_text())


@pytest.fixture(scope="module")
def known():
    return claims.known()


@pytest.fixture
def copy(tmp_path):
    """A copy of all records, to change one in."""
    return Path(shutil.copytree(records.RESULTS, tmp_path / "results"))


def change(folder, name, how):
    path = folder / f"{name}.json"
    record = json.loads(path.read_text())
    how(record)
    path.write_text(json.dumps(record))


class TestVerdict:
    @pytest.fixture
    def number(self, known):
        """A claim of 10, less being better, with ours of 12."""
        (side,) = known["memn2n-joint"].sides
        side = replace(side, value=12.0, spread=None)
        return replace(known["memn2n-joint"], published=10.0, spread=None, sides=(side,))

    @staticmethod
    def ours(claim, *values, spread=None):
        sides = tuple(replace(claim.sides[0], value=v, spread=spread) for v in values)
        return replace(claim, sides=sides)

    def test_a_number_is_reached_where_ours_is_as_good(self, number):
        assert number.verdict == claims.MISSED
        assert self.ours(number, 10.0).verdict == claims.REACHED
        assert self.ours(number, 9.0).verdict == claims.REACHED

    def test_a_number_may_be_one_spread_off_the_larger_of_the_two(self, number):
        assert self.ours(number, 12.0, spread=2.0).verdict == claims.REACHED
        assert self.ours(number, 12.0, spread=1.9).verdict == claims.MISSED
        assert replace(number, spread=2.0).verdict == claims.REACHED

    def test_more_may_be_better(self, number):
        more = replace(number, better="more")
        assert more.verdict == claims.REACHED
        assert self.ours(more, 9.9).verdict == claims.MISSED

    def test_what_was_never_reached_is_not(self, number):
        assert self.ours(number, math.inf).verdict == claims.MISSED

    def test_an_order_needs_a_difference_beyond_the_spread(self, number):
        order = replace(number, published=None)
        assert self.ours(order, 1.0, 4.0, spread=2.0).verdict == claims.REACHED
        close, other = self.ours(order, 1.0, 3.0, spread=2.0), self.ours(order, 4.0, 1.0)
        assert close.verdict == other.verdict == claims.MISSED
        assert "within the spread" in close.said
        assert "other way" in other.said

    def test_with_a_reason_nothing_is_compared(self, number):
        assert replace(number, apart="other data").verdict == claims.APART
        assert replace(number, sides=()).verdict == claims.APART

    def test_words_are_judged_by_their_limit(self, number):
        words = replace(number, published=None, limit=12.0)
        assert words.verdict == claims.REACHED
        assert replace(words, limit=11.0).verdict == claims.MISSED

    def test_one_number_needs_another(self, number):
        with pytest.raises(ValueError, match="needs a published one"):
            _ = replace(number, published=None).verdict


class TestOurs:
    def test_runs_are_chosen_and_summed_up(self):
        side = claims.side(
            {"file": "ntm_ngrams", "where": {"model": "ntm", "variant": ""}, "field": "final.bits"}
        )
        runs = json.loads((records.RESULTS / "ntm_ngrams.json").read_text())["runs"]
        bits = [run["final"]["bits"] for run in runs if run["model"] == "ntm"]
        assert side.count == len(bits) > 1
        assert side.value == pytest.approx(sum(bits) / len(bits))
        assert min(bits) < side.value < max(bits)
        assert 0 < side.spread < max(bits) - min(bits)

    def test_the_best_setting_counts(self):
        given = {"file": "mqar", "field": "accuracy", "best": "rate"}
        given["where"] = {"setting": "frontier", "mixer": "attention", "size": 64}
        best = claims.side(given)
        every = claims.side({name: given[name] for name in ("file", "field", "where")})
        assert len({run["rate"] for run in best.runs}) == 1 < len({r["rate"] for r in every.runs})
        assert best.value > every.value

    def test_the_best_start_by_training_error_is_told_as_such(self, known):
        record = json.loads((records.RESULTS / "babi_hops_1.json").read_text())
        (side,) = known["memn2n-hops-1"].sides
        assert side.best
        assert (side.value, side.mean) == (record["mean"], record["mean_of_seeds"])
        assert side.value < side.mean, "else nothing is hidden"
        told = reproduce.recorded(side, "% wrong")
        assert re.fullmatch(r"25.5 % wrong, the best of 3 starts .*; a start 26.23 ± 0.84", told)
        assert not known["memn2n-third-hop"].sides[0].best

    @pytest.mark.parametrize(
        ("solved", "expected"),
        [
            ([None, None, None], "in 0 of 3 runs"),
            ([None, 48_000, None], "in 1 of 3 runs, after 48,000 sequences"),
            ([24_000, 48_000, None], "in 2 of 3 runs, after 24,000 and 48,000 sequences"),
            ([24_000, 48_000, 50_000], "40,667 ± 14,468 sequences"),
        ],
    )
    def test_who_got_there_is_told_with_the_number(self, copy, solved, expected):
        def mark(record):
            runs = [run for run in record["runs"] if run["model"] == "ntm"]
            for run, sequences in zip(runs, solved, strict=True):
                run["solved_sequences"] = sequences

        change(copy, "ntm_associative_recall", mark)
        told = reproduce.recorded(claims.known(copy)["ntm-recall"].sides[0], "sequences")
        assert told == expected

    def test_runs_that_are_not_there_are_refused(self):
        with pytest.raises(ValueError, match="ntm_copy must have runs"):
            claims.side({"file": "ntm_copy", "where": {"model": "gru"}, "field": "final.bits"})


class TestTable:
    def test_names_are_unique_and_stand_in_the_book(self, known):
        assert len(known) == len(TABLE["claims"]) > 40
        bibliography = (BOOK / "references.bib").read_text()
        for claim in known.values():
            assert (BOOK / f"{claim.page}.ipynb").exists(), claim.name
            assert f"{{{claim.cite}," in bibliography, claim.name

    def test_each_claim_is_compared_or_says_why_not(self, known):
        for claim in known.values():
            assert bool(claim.apart) == (claim.verdict == claims.APART), claim.name
            assert claim.published is not None or claim.words, claim.name
            assert claim.better in ("less", "more")
        assert {c.verdict for c in known.values()} == {claims.REACHED, claims.MISSED, claims.APART}

    def test_a_number_of_ours_stands_under_no_published_one(self):
        """Words have a limit, which says how they are read: here one wrong bit in a hundred."""
        given = {claim["id"]: claim for claim in TABLE["claims"]}
        limits = {name: claim["limit"] for name, claim in given.items() if "limit" in claim}
        size, vectors, rounds = 8, 10, 20
        assert limits == {"ntm-repeat-rounds": size * vectors * rounds / 100}
        assert f"length={vectors},repeats={rounds}." in given["ntm-repeat-rounds"]["here"]["field"]
        for claim in given.values():
            assert not {"limit", "published"} <= claim.keys()

    def test_what_decides_alone_is_not_compared(self, known):
        """One judgement for all claims alike: gaps, an untrained LSTM, another controller."""
        for name, claim in known.items():
            runs = [run for side in claim.sides for run in side.runs]
            gaps = any(run["recipe"].get("noise") for run in runs if "train_error" in run)
            if gaps and "/hops_" in str(_given(name).get("published")):
                assert claim.verdict == claims.APART, name
            if any(run.get("model") == "lstm" for run in runs):
                assert claim.verdict == claims.APART, name

    def test_an_order_differs_in_what_it_claims_alone(self, known):
        one, two = (side.runs[0]["recipe"] for side in known["memn2n-linear-start"].sides)
        assert {name for name in one if one[name] != two[name]} == {"linear_epochs"}

    def test_each_reason_is_used(self):
        used = {claim.get("reason") for claim in TABLE["claims"]} | set(TABLE["systems"].values())
        assert TABLE["reasons"].keys() <= used

    def test_each_system_of_the_chapter_has_a_claim_or_a_reason(self, known):
        found = list(claims.headlines())
        assert {system["id"] for system, _, _ in found} == TABLE["systems"].keys()
        for _, name, reason in found:
            assert bool(reason) != (name in known)

    def test_what_stands_for_a_headline_says_the_same_number(self, known):
        for system, name, _ in claims.headlines():
            if name:
                assert known[name].published == system["headlines"][0]["value"]


def _given(name):
    return next(claim for claim in TABLE["claims"] if claim["id"] == name)


def named(path: Path, record) -> set[str]:
    """The columns of published_memn2n.json that the code of a chapter names, cell by cell."""
    found = set()
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or "paper" not in source:
            continue
        tree = ast.walk(ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", source)))
        words = [_pattern(node) for node in tree if isinstance(node, ast.Constant | ast.JoinedStr)]
        sizes = [size for size in ("1k", "10k") if f'"{size}"' in source] or ["1k"]
        found |= {
            f"published_memn2n/{size}/{column}/"
            for size in sizes
            for column in record[size]
            if any(re.fullmatch(word, column) for word in words)
        }
    return found


def _pattern(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.JoinedStr):
        parts = [p.value if isinstance(p, ast.Constant) else "" for p in node.values]
        filled = "".join(re.escape(part) if part else ".+" for part in parts)
        return filled if "_" in "".join(parts) else "(?!)"  # else it may stand for anything
    return re.escape(node.value) if isinstance(node.value, str) else "(?!)"


class TestNothingIsMissing:
    """Every number of others that a chapter shows has its claim."""

    def test_of_memn2n(self):
        record = json.loads((records.RESULTS / "published_memn2n.json").read_text())
        shown = set().union(*(named(path, record) for path in BOOK.glob("*.ipynb")))
        assert len(shown) >= 12
        told = json.dumps(TABLE["claims"])
        assert {where for where in shown if where not in told} == set()
        assert "published_memn2n/1k/bow/" not in told, "control: what no chapter shows is missing"

    def test_of_the_dnc(self):
        chapter = (BOOK / "dnc.ipynb").read_text()
        rows = json.loads((records.RESULTS / "published_dnc.json").read_text())["rows"]
        left_out = re.findall(r'if n != \\"([\w, ]+)\\"', chapter)
        told = {c.get("published") for c in TABLE["claims"]}
        missing = {row[0] for i, row in enumerate(rows) if f"published_dnc/rows/{i}" not in told}
        assert missing == set(left_out) == {"ADNC"}

    def test_a_record_of_others_is_known_to_the_page_or_holds_no_result(self):
        there = {path.stem for path in records.RESULTS.glob("published_*.json")}
        on_the_page = {"published_memn2n", "published_dnc", "published_models", "published_cache"}
        assert there == on_the_page | {"published_claims", "published_memories"}


class TestReproduce:
    def test_all_are_listed_with_their_cost(self, capsys, known):
        assert reproduce.main([]) == 0
        told = capsys.readouterr().out
        assert all(name in told for name in known)
        assert len(re.findall(r"\d s  (?:not )?(?:reached|comparable)", told)) == sum(
            bool(claim.sides) for claim in known.values()
        )

    def test_a_run_of_two_sides_is_paid_for_and_made_once(self, known, capsys, monkeypatch):
        claim, made = known["ntm-ngrams-best"], []
        one, two = map(reproduce.unit, claim.sides)
        assert one.commands == two.commands
        assert reproduce.cost(claim) == f"{one.seconds:,.0f} s"
        monkeypatch.setattr(verify, "perform", lambda u: made.append(u) or [u.recorded])
        assert reproduce.main(["ntm-ngrams-best"]) == 0
        assert len(made) == 1
        assert capsys.readouterr().out.count("this run") == 2

    def test_a_bad_name_is_refused_with_the_good_ones(self, capsys):
        assert reproduce.main(["mem2n"]) == 2
        assert re.search(r"must be one of .*memn2n-joint.*got 'mem2n'", capsys.readouterr().err)

    def test_what_is_not_run_says_why(self, capsys):
        assert reproduce.main(["memn2n-strong"]) == 0
        assert "does not build" in capsys.readouterr().out

    def test_a_seed_that_is_not_there_is_refused(self, capsys):
        assert reproduce.main(["transformer-induction", "--seed", "99"]) == 2
        assert "must have a run of seed 99" in capsys.readouterr().err

    @pytest.mark.parametrize("off", [0.0, 0.5])
    def test_published_recorded_and_new_stand_side_by_side(self, off, capsys, monkeypatch):
        def perform(unit):
            return [unit.recorded | {"parameters": unit.recorded["parameters"] + off}]

        monkeypatch.setattr(verify, "perform", perform)
        monkeypatch.setattr(verify.Unit, "elsewhere", False)
        assert reproduce.main(["ntm-parameters"]) == (off > 0)
        told = capsys.readouterr().out
        assert "67,561" in told
        assert "62,880, recorded 62,880" in told
        assert ("differs: parameters" if off else "agrees in every digit") in told

    @pytest.mark.slow
    def test_a_cheap_claim_is_made_again(self, capsys):
        assert reproduce.main(["fast-weights-change-delta"]) == 0
        assert capsys.readouterr().out.count("agrees") == 2


class TestRatios:
    def test_each_record_is_compared_or_set_aside_with_a_reason(self):
        paths = records.RESULTS.glob("benchmark_*.json")
        there = {path.stem.removeprefix("benchmark_") for path in paths}
        assert there - ratios.recorded().keys() == there & ratios.ASIDE.keys()
        assert {lead.benchmark for lead in ratios.leads()} == ratios.recorded().keys()

    def test_each_form_of_record_comes_to_rows_of_times(self):
        """Of those that need a peer or hours, and may not be recorded yet."""
        rates = [
            {"way": way, "batch": batch, "pairs_a_second": rate}
            for way, batch, rate in (("durable", 1, 500), ("sqlite", 1, 1000), ("blob", 1, 250))
        ]
        searches = [{"way": "memlib.Store", "ms": 2.0}, {"way": "pgvector, exact", "ms": 1.0}]
        models = [{"model": "GPT-2", "batch": 1, "memlib_ms": 4.0, "dynamic_ms": 8.0}]
        given = {
            "durable": ({"rates": rates}, [0.5, 2.0]),
            "pgvector": ({"rows": searches}, [0.5]),
            "pretrained": ({"rows": models}, [2.0]),
        }
        for name, (figures, ratio) in given.items():
            found = ratios.of_figures(name, figures)
            assert [lead.mean for lead in found] == pytest.approx(ratio), name

    def test_they_agree_with_what_the_benchmarks_computed_themselves(self):
        found = {(lead.ours, lead.other): lead.mean for lead in ratios.leads()}
        record = json.loads((records.RESULTS / "benchmark_dnc.json").read_text())["figures"]
        words = ("`DNC`, its step compiled", "the `dnc` package")
        assert found[words] == pytest.approx(record["ratios"]["package/compiled"], abs=0.01)

    def test_a_slower_time_of_ours_is_a_loss(self, copy):
        def slower(record):
            record["figures"]["update_ms"]["memlib"] *= 100

        (before,) = (lead for lead in ratios.leads(copy) if lead.benchmark == "memn2n")
        change(copy, "benchmark_memn2n", slower)
        (after,) = (lead for lead in ratios.leads(copy) if lead.benchmark == "memn2n")
        assert before.mean > 1 > after.mean
        assert (len(before.lost), len(after.lost)) == (0, 1)
