"""The experiments of the Transformer chapter: their mixers, scores and records, in seconds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Generator, nn

pytest.importorskip("experiments")  # a part of the repository, not of the package
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

from experiments import cache_bytes, capitals, files, forgetting, induction, lengths, mqar, training
from experiments.mixers import MixerModel, ShortConvolution, nbytes
from memlib import Decoder, FastWeights, MemoryAttention, address, tasks


def made(kind, *sizes, dtype=torch.float64):
    torch.manual_seed(0)
    return kind(*sizes).to(dtype)


def inputs(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=Generator().manual_seed(1))


class TestMixers:
    @pytest.mark.parametrize("kernel", [1, 2, 4])
    def test_the_short_convolution_is_that_of_torch(self, kernel):
        layer, x = made(ShortConvolution, 6, kernel), inputs(2, 7, 6)
        filters = layer.weight.flip(0).T.unsqueeze(1)  # (D, 1, K), the newest last
        expected = F.conv1d(F.pad(x.mT, (kernel - 1, 0)), filters, groups=6).mT
        y, past = layer(x)
        torch.testing.assert_close(y, expected)
        first, middle = layer(x[:, :3])
        second, last = layer(x[:, 3:], middle)
        torch.testing.assert_close(torch.cat((first, second), 1), expected)
        assert torch.equal(last, past)
        assert torch.equal(past, x[:, 8 - kernel :])

    def test_a_convolution_over_one_token_is_none(self):
        x = inputs(2, 7, 6)
        assert torch.equal(made(ShortConvolution, 6, 1)(x)[0], x)


def attention(**options):
    return [MemoryAttention(8, heads=1, **options) for _ in range(2)]


class TestMixerModel:
    @pytest.mark.parametrize("tokens", [0, 3])
    def test_with_attention_and_no_convolution_it_is_a_decoder(self, tokens):
        torch.manual_seed(0)
        model = MixerModel(20, 8, attention(), kernel=1, memory_tokens=tokens)
        decoder = Decoder(20, 8, 2, slots=0, memory_tokens=tokens)
        with torch.no_grad():
            decoder.embedding.copy_(model.embedding)
            if tokens:
                decoder.tokens.copy_(model.tokens)
            for layer, mixer in zip(decoder.attention, model.mixers, strict=True):
                layer.load_state_dict(mixer.state_dict())
        text = torch.randint(20, (2, 5))
        y, memory = model(text)
        expected, after = decoder(text)
        torch.testing.assert_close(y, expected)
        if tokens:
            torch.testing.assert_close(memory, after)
            torch.testing.assert_close(model(text, memory)[0], decoder(text, after)[0])

    @pytest.mark.parametrize("kind", ["linear", "delta", "general", "cache", "segments"])
    def test_it_goes_on_where_it_stopped(self, kind):
        torch.manual_seed(0)
        if kind in ("cache", "segments"):
            model = MixerModel(20, 8, attention())
            memory = [
                (None, layer.cache(2, 9) if kind == "cache" else layer.segment_memory(2, 9))
                for layer in model.mixers
            ]
        else:
            layers = [FastWeights(8, rule=kind, key_width=4) for _ in range(2)]
            model, memory = MixerModel(20, 8, layers), None
        text = torch.randint(20, (2, 9))
        with torch.no_grad():
            whole, _ = model(text)
            first, memory = model(text[:, :4], memory)
            second, _ = model(text[:, 4:], memory)
        torch.testing.assert_close(torch.cat((first, second), 1), whole, rtol=1e-4, atol=1e-6)

    def test_only_the_wanted_logits_are_made(self):
        model, text = MixerModel(20, 8, attention()), torch.randint(20, (2, 9))
        at = torch.rand(2, 9) > 0.5
        assert torch.equal(model(text, at=at)[0], model(text)[0][at])

    def test_bytes_are_those_of_all_tensors(self):
        cache = MemoryAttention(8, heads=2).cache(1, 5)
        assert nbytes(cache) == 2 * 5 * 8 * 4 + 8
        assert nbytes([(torch.zeros(3), None), [cache]]) == 12 + nbytes(cache)
        assert nbytes(None) == 0


SMALL = mqar.Setting(
    pairs=2,
    vocab_size=24,
    kernel=2,
    positions="rotary",
    batch_size=32,
    sequences=192,
    warm_up=64,
    every=128,
    sizes={"attention": (16,), "window": (4,), "segments": (8,), "tokens": (3,), "delta": (4, 8)},
    rates=(0.01,),
    length=16,
    segment=4,
    exam=8,
    final=16,
)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A small setting, and folders of one's own."""
    monkeypatch.setitem(mqar.SETTINGS, "frontier", SMALL)
    return ("--results", str(tmp_path), "--unfinished", str(tmp_path / "unfinished"))


def runs_of(folder, name):
    return json.loads((folder / f"{name}.json").read_text())["runs"]


def some_run(mixer="attention", size=16, **changes):
    return replace(mqar.Run("frontier", mixer, size, seed=0, rate=0.01), **changes)


class TestMqar:
    def test_every_point_is_trained_and_recorded_once(self, tmp_path, places, capsys):
        command = ("--seeds", "0", "--rates", "0.01", *places)
        mqar.main(command)
        runs = runs_of(tmp_path, "mqar")
        points = [(mixer, size) for mixer, sizes in SMALL.sizes.items() for size in sizes]
        assert sorted(points) == [(run["mixer"], run["size"]) for run in runs]
        for run in runs:
            assert [p["sequences"] for p in run["curve"]] == [0, 128, 192]
            assert 0 <= run["accuracy"] <= 1
            assert run["recipe"]["pairs"] == 2
            assert not run["solved"]
        assert not list((tmp_path / "unfinished").glob("*.safetensors"))
        capsys.readouterr()
        mqar.main(command)
        assert capsys.readouterr().out.count("done before") == len(points)
        assert runs_of(tmp_path, "mqar") == runs

    def test_the_command_of_a_record_makes_that_record(self, tmp_path, places):
        mqar.main(["--mixers", "delta", "--sizes", "4", "--seeds", "3", "--rates", ".02", *places])
        (run,) = runs_of(tmp_path, "mqar")
        words = run["command"].split()
        assert words[:4] == ["python", "-m", "experiments", "mqar"]
        mqar.main([*words[4:], "--fresh", *places])
        (again,) = runs_of(tmp_path, "mqar")
        for told in (run, again):
            del told["seconds"]
            told["curve"] = [{**point, "seconds": 0} for point in told["curve"]]
        assert again == run

    def test_it_stops_when_solved(self, tmp_path, places, monkeypatch):
        monkeypatch.setitem(mqar.SETTINGS, "frontier", replace(SMALL, solved=0.0))
        mqar.main(["--mixers", "attention", "--seeds", "0", "--rates", "0.01", *places])
        (run,) = runs_of(tmp_path, "mqar")
        assert run["solved"]
        assert run["sequences"] == 128

    def test_a_run_that_was_stopped_goes_on(self, tmp_path, places, monkeypatch):
        run, path = some_run(), tmp_path / "some.safetensors"
        whole = mqar.fit(run, tmp_path / "whole.safetensors", "a")
        job = mqar.set_up(run)
        training.train(job, 64, path=path, about=run.about())
        rest = mqar.fit(run, path, "b")
        assert rest.progress.sequences == 192
        for one, other in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
            assert torch.equal(one, other)

    def test_what_another_process_is_at_is_passed_over(self, tmp_path, places, capsys):
        command = ["--mixers", "attention", "--seeds", "0", "--rates", "0.01", *places]
        mqar.main(command)
        (lock,) = (tmp_path / "unfinished").glob("*.lock")
        with files.lock(lock):
            mqar.main(command)
        assert "another process is at it" in capsys.readouterr().out

    @pytest.mark.parametrize("mixer", ["segments", "tokens"])
    def test_a_row_read_in_segments_has_all_its_answers(self, places, mixer):
        run = some_run(mixer, 3)
        model, batch = mqar.make_model(run), mqar.make_batch(run, 5, Generator().manual_seed(0))
        logits, targets = mqar.answer(run, model, batch)
        assert logits.shape == (10, SMALL.vocab_size)
        assert targets.sort().values.tolist() == batch.targets[batch.mask].sort().values.tolist()
        logits.sum().backward()
        trained = model.tokens.grad if mixer == "tokens" else model.embedding.grad
        assert trained.abs().sum() > 0

    @torch.no_grad()
    def test_what_divides_a_read_matters_only_without_a_norm(self):
        """``divided`` is linear attention as published; ``linear`` would be the same undivided."""
        x = inputs(3, 9, mqar.WIDTH)
        torch.manual_seed(0)
        layer = mqar.make_mixer(some_run("divided")).double()
        query, key = (F.elu(f(x)) + 1 for f in (layer.query, layer.key))
        weights = (query @ key.mT).tril()
        mean = weights / weights.sum(-1, keepdim=True) @ layer.value(x)
        torch.testing.assert_close(layer(x)[0], layer.output(mean), rtol=0, atol=1e-10)

        torch.manual_seed(0)
        layer = mqar.make_mixer(some_run("linear")).double()
        query, key = (F.elu(layer.scale[0] * f(x)) + 1 for f in (layer.query, layer.key))
        total = (query @ key.mT).tril() @ layer.value(x)
        layer.norm.eps = 0.0
        torch.testing.assert_close(layer(x)[0], layer.output(layer.norm(total)))

    def test_memory_is_counted_from_memories(self, places):
        number, layers, width, steps = 4, mqar.LAYERS, mqar.WIDTH, SMALL.length
        counts, last = layers * 8, layers * width * number  # tokens seen; of the convolution
        kept = {  # what the names say, in numbers
            ("attention", 16): 2 * layers * steps * width * number + counts + last,
            ("window", 4): 2 * layers * 4 * width * number + counts + last,
            ("segments", 8): layers * 8 * width * number + counts + last,
            ("tokens", 3): 3 * width * number,
            ("linear", 5): layers * 5 * (width + 1) * number + last,
            ("sum", 5): layers * 5 * width * number + last,
            ("delta", 5): layers * 5 * width * number + last,
        }
        segment = {
            "segments": 2 * layers * SMALL.segment * width * number + counts,
            "tokens": 2 * layers * (3 + SMALL.segment) * width * number + counts + last,
        }
        for (mixer, size), carried in kept.items():
            run = some_run(mixer, size)
            found = mqar.memory_bytes(run, mqar.make_model(run))
            assert found == {"carried": carried, "bytes": carried + segment.get(mixer, 0)}


class TestInduction:
    RECIPE = replace(
        induction.RECIPE, length=12, period=(3, 5), vocab_size=8, width=8, heads=2, batch_size=4,
        warm_up=4, sequences=24, every=8, exam=6,
    )  # fmt: skip

    @pytest.fixture
    def places(self, tmp_path, monkeypatch):
        monkeypatch.setattr(induction, "RECIPE", self.RECIPE)
        return ("--results", str(tmp_path), "--unfinished", str(tmp_path / "unfinished"))

    def test_followers_are_those_of_a_loop(self):
        tokens = torch.randint(5, (3, 9), generator=Generator().manual_seed(0))
        found = induction.followers(tokens)
        for b in range(3):
            for t in range(9):
                for i in range(9):
                    follows = 0 < i <= t and tokens[b, i - 1] == tokens[b, t]
                    assert found[b, t, i] == follows

    def test_a_head_that_looks_there_scores_1(self):
        batch = tasks.induction(4, length=20, period=(4, 6), vocab_size=10)
        after = induction.followers(batch.inputs)
        there = address(torch.zeros(4, 20, 1), torch.zeros(4, 20, 1), mask=after)
        before = torch.diag(torch.ones(19), -1).expand(4, 20, 20)
        weights = torch.stack((there, before), dim=1)
        scores = induction.head_scores([weights], batch)
        assert scores["prefix_1_1"] == scores["previous_1_2"] == 1
        assert scores["prefix_1_2"] < 0.3
        assert scores.keys() == {f"{n}_1_{h}" for n in ("previous", "prefix") for h in (1, 2)}

    def test_what_it_would_take_to_answer_right_lies_there(self):
        batch = tasks.induction(4, length=20, period=(4, 6), vocab_size=10)
        after = induction.followers(batch.inputs).double()
        named = (after @ F.one_hot(batch.inputs, 10).double()).argmax(-1)
        assert torch.equal(named[batch.mask], batch.targets[batch.mask])

    def test_runs_are_recorded_with_the_scores_of_their_heads(self, tmp_path, places):
        induction.main(["--seeds", "0", *places])
        one, two = runs_of(tmp_path, "induction")
        assert (one["layers"], two["layers"]) == (1, 2)
        assert [p["sequences"] for p in two["curve"]] == [0, 8, 16, 24]
        for point in two["curve"]:
            assert {"loss", "accuracy", "prefix_2_1", "previous_1_2"} <= point.keys()
        assert "prefix_2_1" not in one["curve"][0]
        assert 0 < two["even"]["prefix_1_1"] < 1

    def test_the_exported_model_is_the_recorded_one(self, tmp_path, places):
        induction.main(["--layers", "2", "--seeds", "1", "--export", *places])
        (run,) = runs_of(tmp_path, "induction")
        path = tmp_path / "induction.safetensors"
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
        recipe = about["recipe"]
        sizes = [recipe["vocab_size"], recipe["width"], about["layers"], recipe["heads"]]
        model = Decoder(*sizes, slots=0)
        model.load_state_dict(load_file(path))
        exam = Generator().manual_seed(induction.EXAM)
        exam = induction.make_batch(recipe["exam"], exam, self.RECIPE)
        last = {k: v for k, v in run["curve"][-1].items() if k not in ("sequences", "seconds")}
        assert induction.examine(model, exam) == last

    def test_an_export_is_of_one_run(self, capsys):
        with pytest.raises(SystemExit):
            induction.main(["--export"])
        assert "--export needs one run" in capsys.readouterr().err

    def test_a_run_can_begin_anew(self, tmp_path, places):
        command = ["--layers", "1", "--seeds", "0", *places]
        induction.main(command)
        (saved,) = (tmp_path / "unfinished").glob("*.safetensors")
        before = saved.stat().st_mtime_ns
        induction.main([*command, "--fresh"])
        assert saved.stat().st_mtime_ns > before
        assert len(runs_of(tmp_path, "induction")) == 1


class TestLengths:
    @pytest.fixture
    def places(self, tmp_path, monkeypatch):
        recipe = replace(TestInduction.RECIPE, length=16, vocab_size=24, heads=1)
        monkeypatch.setattr(lengths, "RECIPE", recipe)
        return ("--results", str(tmp_path), "--unfinished", str(tmp_path / "unfinished"))

    def test_every_scheme_is_tested_at_every_length(self, tmp_path, places):
        lengths.main(["--seeds", "0", *places])
        runs = runs_of(tmp_path, "lengths")
        assert [run["scheme"] for run in runs] == sorted(lengths.SCHEMES)
        for run in runs:
            assert [(t["length"], t["period"]) for t in run["tests"]] == [
                (16, [3, 5]), (32, [3, 5]), (32, [6, 10]), (64, [3, 5]), (64, [12, 20])
            ]  # fmt: skip
            for test in run["tests"]:
                assert len(test["along"]) == test["length"] // lengths.BIN
                assert (test["along"][0] is None) == (test["period"][0] >= lengths.BIN)
                assert (test["first_said"]["late"] is None) == (test["period"][1] < 16)
        learned = next(run for run in runs if run["scheme"] == "learned")
        assert learned["parameters"] > max(r["parameters"] for r in runs if r is not learned)

    def test_rows_of_a_model_that_knows_the_answers_are_right(self, places):
        class Oracle(nn.Module):
            def forward(self, tokens):
                after = induction.followers(tokens).double()
                return after @ F.one_hot(tokens, 24).double(), None

        for test in lengths.tests(Oracle()):
            assert test["accuracy"] == 1
            assert set(test["along"]) <= {1, None}

    def test_the_table_of_learned_positions_reaches_the_longest_rows(self):
        longest = max(lengths.TIMES) * lengths.RECIPE.length
        assert lengths.SCHEMES["learned"]["length"] == longest
        assert max(lengths.lengthened(4, True).period) <= lengths.RECIPE.vocab_size


class TestCapitals:
    RECIPE = replace(
        capitals.RECIPE, length=24, period=(6, 10), batch_size=4, updates=6, every=2, exam=8
    )

    @pytest.fixture
    def trained(self):
        job = capitals.set_up(0, self.RECIPE)
        capitals.train(job, self.RECIPE)
        return job

    def test_it_trains_until_enough_or_the_end(self, trained):
        curve = trained.progress.curve
        assert [point["sequences"] for point in curve] == [0, 8, 16, 24]
        job = capitals.set_up(0, easy := replace(self.RECIPE, enough=-1.0))
        capitals.train(job, easy)
        assert job.progress.sequences == 8
        assert {"text", "training", "prefix_2_1", "before_1_2"} <= set(curve[0])

    def test_the_rate_rises_as_in_the_chapter(self, trained):
        rates = [trained.rate(4 * update) for update in range(60)]
        assert rates == pytest.approx([0.01 * min(1, (n + 1) / 50) for n in range(60)])

    def test_a_part_that_is_taken_away_adds_nothing(self, trained):
        model, words = trained.model.eval(), torch.arange(10).unsqueeze(0)
        for layer, part in ((1, "attention"), (2, "feed-forward")):
            cut = capitals.without(model, layer, part)
            block = cut.blocks[layer - 1]
            x = torch.randn(1, 5, 64, generator=Generator().manual_seed(1))
            y = block.attention(x)[0] if part == "attention" else block.feed_forward(x)
            assert not y.any()
        one, two = (capitals.without(model, 1, f"head {head}") for head in (1, 2))
        halves = [cut.blocks[0].attention.output.weight for cut in (one, two)]
        assert torch.equal(sum(halves), model.blocks[0].attention.output.weight)
        assert not torch.equal(one(words)[0], model(words)[0])

    def test_silencing_no_slot_changes_nothing(self, trained):
        model, words = trained.model.eval(), capitals.texts(4, Generator().manual_seed(3))
        nowhere, everywhere = torch.zeros_like(words).bool(), torch.ones_like(words).bool()
        with torch.no_grad():
            whole = capitals.silenced(model, words, nowhere)
            none = capitals.silenced(model, words, everywhere)
            cut = capitals.without(model, 1, "attention")(words)[0]
            torch.testing.assert_close(whole, model(words)[0], rtol=0, atol=1e-4)
            torch.testing.assert_close(none, cut, rtol=0, atol=1e-4)

    def test_what_is_counted_before_countries(self, trained):
        words = capitals.texts(16, Generator().manual_seed(4))
        found = capitals.before_countries(trained.model.eval(), words, 1)
        told = capitals.kinds(words)[1]
        assert found["queries"] == (told & (words[:, 1:] < 16)).sum()
        assert found["on_capital"] + found["on_country"] <= found["queries"]

    def test_the_chapter_draws_and_asks_the_same(self):
        path = Path(__file__).parents[2] / "book" / "transformer.ipynb"
        cells = {c["id"]: "".join(c["source"]) for c in json.loads(path.read_text())["cells"]}
        names = {"torch": torch, "F": F, "memlib": __import__("memlib.tasks")}
        exec(cells["texts"].split("example =")[0] + cells["live-looks"], names)
        for seed in range(3):
            words, mine = (
                draw(8, Generator().manual_seed(seed)) for draw in (names["texts"], capitals.texts)
            )
            assert torch.equal(words, mine)
            for theirs, ours in zip(names["kinds"](words), capitals.kinds(words), strict=True):
                assert torch.equal(theirs, ours)


class TestCacheBytes:
    def test_every_model_names_its_source(self):
        models = cache_bytes.published()
        assert len({model["name"] for model in models}) == len(models) > 8
        for model in models:
            assert "config" in model["source"] or "arXiv" in model["source"]
            assert (model["window"] is None) == (model["windowed_layers"] == 0)
            assert model["windowed_layers"] <= model["layers"]

    @pytest.mark.parametrize("tokens", [1, 1024, 5000])
    def test_bytes_are_layers_heads_widths_and_tokens(self, tokens):
        for model in cache_bytes.published():
            width = model["kv_heads"] * (model["key_width"] + model["value_width"])
            windowed = model["windowed_layers"]
            slots = windowed * min(tokens, model["window"] or 0)
            slots += (model["layers"] - windowed) * tokens
            assert cache_bytes.cache_bytes(model, tokens) == 2 * width * slots

    def test_half_the_bytes_a_number_half_the_cache(self):
        model = cache_bytes.published()[0]
        whole = cache_bytes.cache_bytes(model, 10, torch.float32, batch_size=2)
        assert whole == 4 * cache_bytes.cache_bytes(model, 10, torch.bfloat16)

    def test_the_table_has_a_line_for_each_model(self, capsys):
        cache_bytes.main([])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1 + len(cache_bytes.published())
        cache_bytes.main(["--tokens", "1024"])
        gpt2 = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("GPT-2 "))
        assert gpt2.split()[-3:] == ["36,864", "1,024", "0.04"]


class TestForgetting:
    """What the rules of the experiment keep; that `keep` keeps it right is tested elsewhere."""

    MODEL = Decoder(20, 8, 2, 2, slots=4).double()
    TOKENS = torch.randint(20, (3, 12), generator=Generator().manual_seed(0))

    @pytest.mark.parametrize("rule", forgetting.RULES)
    def test_with_all_slots_nothing_is_forgotten(self, rule):
        reader = forgetting.Reader(self.MODEL)
        whole, _ = self.MODEL(self.TOKENS)
        torch.testing.assert_close(forgetting.read(reader, self.TOKENS, rule, 12), whole)

    def test_the_window_is_that_of_a_layer(self):
        window = Decoder(20, 8, 2, 2, slots=4, window=5).double()
        window.load_state_dict(self.MODEL.state_dict())
        found = forgetting.read(forgetting.Reader(self.MODEL), self.TOKENS, "window", 4)
        torch.testing.assert_close(found, window(self.TOKENS)[0])

    @pytest.mark.parametrize("rule", forgetting.RULES[1:])
    def test_a_rule_keeps_what_it_says(self, rule):
        cache = self.MODEL.attention[0].cache(3, 7)
        draw = Generator().manual_seed(1)
        lots = torch.rand(3, 12, generator=draw)
        layer, seen = forgetting.Layer(cache, rule, 6, lots), []
        for t in range(12):
            cache.extend(*torch.zeros(2, 3, 2, 1, 4).double())
            looks = (
                torch.rand(3, 2, 1, cache.slots).double() * (cache.positions >= 0)[:, None, None]
            )
            held = cache.positions.clone()
            row = torch.zeros(3, 13).double()
            row.scatter_(1, held.where(held >= 0, 12), looks.sum((1, 2)))
            seen.append(row[:, :12])
            layer.forget(looks)
            late = seen[-3:] if rule == "looked at" else seen
            score = {"random": lots.double()}.get(rule, torch.stack(late).sum(0))
            for b, places in enumerate(held):
                old = [p for p in places.tolist() if 0 <= p <= t - 3]
                if rule == "sinks":
                    best = sorted(old, key=lambda p: (p >= 4, -p))
                elif rule == "looked at":  # with two neighbors on each side
                    near = {p: sum(score[b, q].item() for q in old[max(0, i - 2) : i + 3])
                            for i, p in enumerate(old)}  # fmt: skip
                    best = sorted(old, key=lambda p: (-near[p], p))
                else:
                    best = sorted(old, key=lambda p: (-score[b, p].item(), p))
                new = [p for p in places.tolist() if p > max(-1, t - 3)]
                expected = sorted(new + best[: 6 - len(new)])
                if rule == "sinks":
                    every = sorted(old + new, key=lambda p: (p >= 4, -p))
                    expected = sorted(every[:6])
                got = cache.positions[b]
                assert got[got >= 0].tolist() == expected

    def test_what_is_taken_away_is_gone(self):
        """The same as in a text of which later tokens may not read it."""
        model = Decoder(20, 8, 1, 2, slots=4, positions="none").double()
        tokens = self.TOKENS.clone()
        found = forgetting.read_without(forgetting.Reader(model), tokens, [2])
        tokens = torch.cat((tokens[:, :2], tokens[:, 3:]), dim=1)
        whole, _ = model(tokens)
        torch.testing.assert_close(found[:, 3:], whole[:, 2:])
