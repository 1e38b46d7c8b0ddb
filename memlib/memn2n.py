"""The end-to-end memory network: read a story several times, then answer.

Each sentence becomes a slot: its words are summed into a key and a value. A hop is one
`memlib.attend` of that memory, and what it brings back changes the query of the next.
"""

import math
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib import _checks as checks
from memlib.attention.scores import HALF, _similarity, _single
from memlib.attention.verbs import _address, _read

Tying = Literal["adjacent", "layerwise", "none"]
Encoding = Literal["position", "bag"]
SCALE = 0.1  # standard deviation of every parameter at first


def position_encoding(
    words: int, width: int, *, device: torch.device | str | None = None
) -> Tensor:
    r"""Weigh the words of a sentence by their place: :math:`l_{jk} = 1 + 4\,p_j\,q_k`.

    :math:`p_j = (j - \frac{J+1}{2}) / J` and :math:`q_k = (k - \frac{d+1}{2}) / d` run evenly
    from about -1/2 to 1/2, over the J words and over the d numbers of an embedding.

    Args:
        words: number J of words of the sentence.
        width: number d of an embedding's numbers.
        device: of the result.

    Returns:
        Weights (J, d), 1 on average.

    Accuracy: 1e-6 of 1.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size below 1.

    Source:
        Sukhbaatar et al. 2015, section 4.1, as its official code computes it (there J is the
        length of the longest sentence plus one): twice the formula of the paper, up to terms in
        1/J and 1/d.

    Example:
        >>> from memlib import position_encoding
        >>> position_encoding(words=2, width=2)
        tensor([[1.2500, 0.7500],
                [0.7500, 1.2500]])
    """
    words = checks.integer("words", words, 1)
    width = checks.integer("width", width, 1)
    places, numbers = torch.arange(1, words + 1, device=device), torch.arange(width, device=device)
    return 1 + _centered(places, words).unsqueeze(-1) * _slope(numbers, width)


def _centered(j: Tensor, of: Tensor | int) -> Tensor:
    """p_j of places j = 1 … J."""
    return (j - (of + 1) / 2) / of


def _slope(numbers: Tensor, width: int) -> Tensor:
    """4 q_k of numbers k - 1 = 0 … d - 1."""
    return 4 * (numbers + 0.5 - width / 2) / width


class MemN2N(nn.Module):
    r"""An end-to-end memory network for questions about a story.

    Sentence :math:`x_i` becomes the key :math:`m_i = \sum_j l_j \odot A x_{ij} + T_A(i)` and,
    with matrices of their own, the value :math:`c_i`; the question becomes the query
    :math:`u^1`. Hop k reads and goes on: :math:`o^k = \sum_i \operatorname{softmax}_i(u^k \cdot
    m_i)\, c_i`, :math:`u^{k+1} = u^k + o^k`. The scores of the answers are :math:`W u^{K+1}`.

    ========= =================================== ============================================
    tying     matrices of hop k                   question and answer
    ========= =================================== ============================================
    adjacent  keys :math:`C^{k-1}`, values        question :math:`C^0`, answers :math:`C^K`:
              :math:`C^k`                         answer a is word a + 1
    layerwise A and C are those of every hop;     their own
              :math:`u^{k+1} = H u^k + o^k`
    none      :math:`A^k` and :math:`C^k`         their own
    ========= =================================== ============================================

    Args:
        vocab_size: number V of words; word 0 is padding.
        answers: number A of answers; with adjacent tying at most V - 1.
        width: size d of an embedding.
        hops: number K of reads.
        slots: the newest sentences that are readable; older ones are as if not told.
        tying: "adjacent", "layerwise" or "none".
        encoding: "position" weighs words by `position_encoding`, "bag" sums them.
        temporal: add to each slot a vector for its age, counted from the newest sentence.
        noise: in training, make ages up to this fraction larger, by random gaps.
        relu: clip the query at 0 after each hop.
        empty: let the slots without a sentence take part in the softmax, with a key and a value of
            0. Then a hop may look at nothing, and what it brings back tells how many sentences
            fit; without them every read is an average.
        linear: read without softmax; for a linear start, train so first, then set
            ``model.linear = False``.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer, or the dtype not real.
        ValueError: a size below 1, too many answers, or an unknown name.

    Source:
        Sukhbaatar, Szlam, Weston, Fergus 2015 (arXiv 1503.08895), sections 2 to 4.1. Unlike
        its official code, which has one table for the longest sentence, a position is weighed by
        the sentence's own words.

    Example:
        >>> import torch
        >>> from memlib import MemN2N
        >>> model = MemN2N(vocab_size=30, answers=5, width=20, hops=3)
        >>> story, question = torch.randint(1, 30, (2, 8, 6)), torch.randint(1, 30, (2, 4))
        >>> scores, weights = model(story, question, need_weights=True)
        >>> scores.shape, weights.shape
        (torch.Size([2, 5]), torch.Size([2, 3, 8]))
    """

    def __init__(
        self,
        vocab_size: int,
        answers: int,
        width: int = 20,
        hops: int = 3,
        *,
        slots: int = 50,
        tying: Tying = "adjacent",
        encoding: Encoding = "position",
        temporal: bool = True,
        noise: float = 0.0,
        relu: bool = False,
        empty: bool = True,
        linear: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        vocab_size = checks.integer("vocab_size", vocab_size, 2)
        checks.choice("tying", tying, ("adjacent", "layerwise", "none"))
        checks.choice("encoding", encoding, ("position", "bag"))
        most = vocab_size - 1 if tying == "adjacent" else math.inf
        answers = checks.integer("answers", answers, 1, most)
        width = checks.integer("width", width, 1)
        hops = checks.integer("hops", hops, 1)
        slots = checks.integer("slots", slots, 1)
        noise = checks.number("noise", noise, 0)
        like = torch.empty(0, device=device, dtype=dtype)
        checks.tensor("dtype", like)

        self.vocab_size, self.answers, self.width, self.hops = vocab_size, answers, width, hops
        self.slots, self.tying, self.encoding, self.temporal = slots, tying, encoding, temporal
        self.noise, self.relu, self.empty, self.linear = noise, relu, empty, linear
        factory: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        # which matrices hold the keys and the values of each hop, and the question
        self._keys, self._values, self._question = {
            "adjacent": ([*range(hops)], [*range(1, hops + 1)], 0),
            "layerwise": ([0] * hops, [1] * hops, 2),
            "none": ([*range(hops)], [*range(hops, 2 * hops)], 2 * hops),
        }[tying]
        matrices = 1 + max(*self._keys, *self._values, self._question)
        self._ages = slots + math.ceil(noise * slots) if temporal else 0  # told apart, from 0
        self.embeddings = nn.ParameterList(  # (V + ages, d): words, then ages
            torch.empty(vocab_size + self._ages, width, **factory) for _ in range(matrices)
        )
        adjacent, layerwise = tying == "adjacent", tying == "layerwise"
        self.answer = None if adjacent else nn.Parameter(torch.empty(answers, width, **factory))
        self.between = nn.Parameter(torch.empty(width, width, **factory)) if layerwise else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters; padding stays 0."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(std=SCALE)
            for embedding in self.embeddings:
                embedding[0] = 0

    @overload
    def forward(
        self, story: Tensor, question: Tensor, *, need_weights: Literal[False] = ...
    ) -> Tensor: ...

    @overload
    def forward(
        self, story: Tensor, question: Tensor, *, need_weights: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def forward(
        self, story: Tensor, question: Tensor, *, need_weights: bool
    ) -> Tensor | tuple[Tensor, Tensor]: ...

    def forward(
        self, story: Tensor, question: Tensor, *, need_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Answer questions.

        Args:
            story: (B, N, W) integers in [0, V), the sentences from the oldest to the newest. Word
                0 is padding and may stand anywhere; a sentence of padding alone is no sentence.
            question: (B, W') integers in [0, V).
            need_weights: return where each hop looked too.

        Returns:
            Scores (B, A), before a softmax; with `need_weights` also the weights (B, K, N), which
            sum to 1 together with those of the empty slots. Without a readable sentence the
            answer rests on the question alone.

        Accuracy: float32 1e-5, bfloat16 1e-1, float16 1e-2, of the largest result, times its
        condition.

        Raises:
            TypeError: story or question are no integer tensors.
            ValueError: shapes that do not fit, a word outside [0, V), or parameters that are not
                finite or too large for the dtype.
        """
        self._check(story, question)
        told = (story != 0).any(dim=-1)  # (B, N)
        age = told.flip(1).cumsum(1).flip(1) - told.long()  # sentences after it
        mask = told & (age < self.slots)
        encoded = self._encode(story, question, age.clamp(max=self.slots - 1), told)

        memory, u = encoded[:, :-1], encoded[:, -1, self._question]  # (B, N, matrices, d), (B, d)
        if self.empty:
            more = max(0, self.slots - story.shape[1])
            memory, told = F.pad(memory, (0, 0, 0, 0, 0, more)), F.pad(told, (0, more))
            mask = F.pad(mask, (0, more))
            left = self.slots - mask.sum(1, keepdim=True)  # (B, 1), slots without a sentence
            mask = mask | ~told & ((~told).cumsum(1) <= left)
        weights = []
        for k, v in zip(self._keys, self._values, strict=True):
            read, where = self._hop(u, memory[:, :, k], memory[:, :, v], mask)
            u = read + (u if self.between is None else u @ _single(self.between).mT)
            u = u.relu() if self.relu else u
            weights.append((where * told)[:, : story.shape[1]])
        answer = self.embeddings[-1][1 : self.answers + 1] if self.answer is None else self.answer
        scores = self._rounded(u @ _single(answer).mT)
        return (scores, self._rounded(torch.stack(weights, dim=1))) if need_weights else scores

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def _hop(self, u: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read once; return what came back (B, d) and from where (B, N)."""
        query, mask = u.unsqueeze(1), mask.unsqueeze(1)  # (B, 1, d), (B, 1, N)
        if self.linear:
            weights = _similarity(query, keys, "dot").masked_fill(~mask, 0)
        else:
            weights = _address(query, keys, "dot", mask=mask)
        return _read(weights, values)[:, 0], weights[:, 0]

    def _encode(self, story: Tensor, question: Tensor, age: Tensor, told: Tensor) -> Tensor:
        """Look every word up once; return (B, N + 1, matrices, d), the question last."""
        wide = max(story.shape[-1], question.shape[-1])
        words = torch.cat(
            (F.pad(story, (0, wide - story.shape[-1])),
             F.pad(question, (0, wide - question.shape[-1])).unsqueeze(1)),
            dim=1,
        )  # fmt: skip
        table = _single(torch.cat([*self.embeddings], dim=1))  # (V + ages, matrices * d)
        said = (words != 0).to(table.dtype)
        weights = said.unsqueeze(0)
        if self.encoding == "position":  # the sum splits: 1 + 4 p q gives two sums over the words
            place = _centered(said.cumsum(-1), said.sum(-1, keepdim=True).clamp(min=1))
            weights = torch.stack((said, place * said))
        if self.temporal:  # an age is one more word of the sentence, without a place
            age = (self.vocab_size + (self._gaps(age, told) if self.training else age)) * told
            words = torch.cat((words, F.pad(age, (0, 1)).unsqueeze(-1)), dim=-1)
            weights = F.pad(weights, (0, 1))
            weights[0, ..., -1] = 1
        sums = F.embedding_bag(
            words.expand(len(weights), *words.shape).flatten(0, 2),
            table,
            per_sample_weights=weights.flatten(0, 2),
            mode="sum",
            padding_idx=0,
        ).unflatten(0, (*weights.shape[:3],))
        encoded: Tensor = sums[0].unflatten(-1, (len(self.embeddings), self.width))
        if len(sums) > 1:
            numbers = torch.arange(self.width, dtype=table.dtype, device=table.device)
            encoded = encoded + sums[1].view_as(encoded) * _slope(numbers, self.width)
        return encoded

    def _rounded(self, result: Tensor) -> Tensor:
        """Return half precision, of which hops are made in float32, as such; refuse overflow."""
        dtype = self.embeddings[0].dtype
        result = result.to(dtype) if dtype in HALF else result
        checks.finite(result, **dict(self.named_parameters()))
        return result

    def _gaps(self, age: Tensor, told: Tensor) -> Tensor:
        """Stretch ages by gaps at random places: as if up to noise * n sentences were missing."""
        if not self.noise:
            return age
        count = told.sum(1, keepdim=True).clamp(max=self.slots)  # (B, 1)
        most = (self.noise * count).ceil() + 1
        missing = (torch.rand_like(most) * most).long()  # 0 … ceil(noise * n)
        draw = torch.rand(len(age), self._ages, device=age.device)
        later = torch.arange(self._ages, device=age.device) >= count + missing
        kept = draw.masked_fill(later, 2).argsort(-1).argsort(-1) < count  # n of n + missing
        places = kept.logical_not().long().argsort(stable=True, dim=-1)  # the kept ones, in order
        return places.gather(1, age)

    def _check(self, story: Tensor, question: Tensor) -> None:
        for name, value in {"story": story, "question": question}.items():
            checks.integers(name, value)
        checks.shape("story", story, "(B, N, W)")
        checks.shape("question", question, "(B, W)", B=story.shape[0])
        parameters = {"the parameters": self.embeddings[0]}
        checks.together(**parameters, story=story, question=question)
        for name, value in {"story": story, "question": question}.items():
            if checks.anywhere((value < 0) | (value >= self.vocab_size)):
                low, high = value.min().item(), value.max().item()
                raise ValueError(
                    f"{name} must hold words in [0, {self.vocab_size}); got {low} to {high}"
                )

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        return (
            f"{self.vocab_size}, {self.answers}, width={self.width}, hops={self.hops}, "
            f"slots={self.slots}, tying={self.tying!r}, encoding={self.encoding!r}, "
            f"temporal={self.temporal}, noise={self.noise}, relu={self.relu}, empty={self.empty}, "
            f"linear={self.linear}"
        )
