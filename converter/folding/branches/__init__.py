"""Parallel linear branches that are summed become one op.

    sum_i +-(W_i * x + b_i)  =  (sum_i +-W_i) * x + sum_i +-b_i

A 3x3 convolution, a 1x1 one and a batch-norm on the same input, added, are one 3x3
convolution: the small kernel is placed into the large one where it is aligned; a batch-norm on
x itself is the diagonal kernel a[c] with bias b[c], x itself a kernel of ones, an average pool one
of 1/k (Ding et al., RepVGG, CVPR 2021, arXiv 2101.03697, section 3.3; Diverse Branch Block, CVPR
2021, arXiv 2103.13425, section 3.2). Nothing here is specific to a model.

`sums.py` finds the sums and rewrites them, `windows.py` and `matrices.py` say which op takes up
which, `find.py` decides, `merge.py` carries it out.
"""

from converter.folding.branches.find import find_merges
from converter.folding.branches.merge import Branch, Merge, merged, rewire

__all__ = ["Branch", "Merge", "find_merges", "merged", "rewire"]
