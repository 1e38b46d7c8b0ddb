"""softmax(q kᵀ) v on a GPU: where PyTorch's kernels need help to be right, or to stream at all.

PyTorch chooses among fused kernels (FlashAttention, a memory-efficient one, cuDNN's), which differ
in what they give a query that may read nothing; widths that are no multiple of 8 leave only the
way that builds the scores. A fused kernel hands one block of queries of one row to one
multiprocessor, so that few queries of a large memory would keep most of a GPU idle; then the
scores, no more numbers than the keys, are built by products of matrices, which keep it busy.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib.attention.scores import _softmax

ALIGNED = 8  # every fused kernel takes widths that are multiples of this, in every dtype
QUERY_BLOCK = 64  # queries that one multiprocessor handles
BUSY = 64  # tasks that keep a GPU busy


def attend(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, scale: float = 1.0
) -> Tensor:
    """(B, H, L, M), (B, H, N, M), (B, H, N, V) -> (B, H, L, V); arguments are trusted."""
    if _few(query, keys):
        return _by_products(query * scale, keys, values, mask)
    width = values.shape[-1]
    query, keys, values = (_aligned(x) for x in (query, keys, values))
    if mask is None:
        return F.scaled_dot_product_attention(query, keys, values, scale=scale)[..., :width]
    nothing = ~mask.any(dim=-1, keepdim=True)  # reads everything, and is cleared
    value = F.scaled_dot_product_attention(query, keys, values, mask | nothing, scale=scale)
    return value[..., :width].masked_fill(nothing, 0)


def _few(query: Tensor, keys: Tensor) -> bool:
    """Whether fused kernels would leave the GPU idle, and the scores are no more than the keys."""
    queries, width = query.shape[-2:]
    tasks = query.shape[:-2].numel() * -(-queries // QUERY_BLOCK)
    exact = query.dtype in (torch.float32, torch.float64)  # half precision would round the scores
    return exact and queries <= width and tasks < BUSY


def _by_products(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    scores = query @ keys.mT
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    return _softmax(scores, mask) @ values


def _aligned(x: Tensor) -> Tensor:
    lacking = -x.shape[-1] % ALIGNED
    return F.pad(x, (0, lacking)) if lacking else x
