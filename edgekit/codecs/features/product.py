"""product: product quantisation (Jegou et al., 2011, doi:10.1109/TPAMI.2010.57), the baseline of `sgq`.

Groups are runs of neighbouring channels, and the first codebooks are trained as faiss trains them. During training the
codebooks follow the features as those of `sgq` do, so that there only the grouping differs.
"""

from typing import Any, Dict

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.kmeans import lloyd

#: Rounds of Lloyd's algorithm, as in faiss.
ITERATIONS = 25


class Product(SGQ):
    """G contiguous groups of equally many channels, 2**bits codewords each; tables and payload as in a packed `sgq`.

    With the same codebook its indices are those of faiss's ProductQuantizer, except among equally near codewords.

    >>> Product(groups=2, bits=4).pack({"codes": np.array([[[[1]], [[15]]]], dtype=np.int32)}).hex()
    '1f'
    """

    codec_id = "product"

    def __init__(self, groups: int = 8, bits: int = 4) -> None:
        super().__init__(groups, bits, grouping="contiguous")

    @property
    def config(self) -> Dict[str, Any]:
        return {"groups": self.groups, "bits": self.bits}

    def fit(self, feature: np.ndarray, tables: Arrays, rng: np.random.Generator) -> np.ndarray:
        books = []
        for points in self.stripes(feature):
            # With fewer points than codewords, points are used again.
            first = points[np.resize(rng.permutation(len(points)), self.words)]
            books.append(lloyd(points, first, ITERATIONS))
        return np.concatenate(books, axis=1)
