r"""Whitening of descriptors whose variance spans many orders of magnitude.

The potential in a small sphere is smooth: its coefficients are dominated by a few
directions, and what tells environments of a liquid apart has 10⁻⁷ of the variance of
the first. A kernel of the raw features has learnt the large directions long before
it sees the small ones. With the covariance of the features

    C = U diag(v) Uᵀ

the features x W, W = U diag(v^(−a)), have the variances v^(1−2a): a = 0 leaves them as
they are, a = 1/2 makes all alike. Between the two, small directions are lifted and
noise among the smallest is not lifted all the way.

No target is looked at, only features of the structures that are learnt from.
"""

import numpy as np

from lode.systems import finite_array

_EPSILON = np.finfo(np.float64).eps


def whitening(covariance, exponent=0.4, n_components=None, condition=1e-14, noise=0.0):
    """Linear map that evens out the variances of features.

    Parameters
    ----------
    covariance : ndarray (n_features, n_features)
        Symmetric positive semi-definite.
    exponent : float
        a, from 0 (principal components as they are) to 0.5 (all of unit variance).
    n_components : int, optional
        Keep so many principal components at most.
    condition : float
        Components whose variance is not above this share of the largest are left
        out. Rounding of the covariance itself is about 1e-16.
    noise : float
        Mean square error of the features: components whose variance is not above it
        are left out.

    Returns
    -------
    ndarray (n_features, n_components)
        W, scaled so that the features x W have the total variance 1.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from lode.whitening import whitening
    >>> covariance = np.diag([1.0, 1e-4])
    >>> matrix = whitening(covariance, exponent=0.5)
    >>> print(np.diag(matrix.T @ covariance @ matrix).round(6))
    [0.5 0.5]
    """
    covariance = finite_array(covariance, (None, None), "covariance")
    if covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"covariance must be square, got shape {covariance.shape}")
    check_whitening(exponent, n_components, condition)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    resolved = values > max(condition, _EPSILON) * max(values[:1].sum(), 0.0)
    resolved &= values > noise
    if n_components is not None:
        resolved[n_components:] = False
    values, vectors = values[resolved], vectors[:, resolved]
    scale = np.sqrt(np.sum(values ** (1.0 - 2.0 * exponent)))
    return vectors * (values**-exponent / (scale if scale > 0 else 1.0))


def check_whitening(exponent, n_components, condition):
    """Refuse settings of :func:`whitening` that are out of range.

    Raises
    ------
    ValueError
        If one is.
    """
    if not 0.0 <= exponent <= 0.5:
        raise ValueError(f"exponent must be from 0 to 0.5, got {exponent}")
    if n_components is not None and not (
        isinstance(n_components, int | np.integer) and n_components >= 1
    ):
        raise ValueError(
            f"n_components must be a positive integer or None, got {n_components!r}"
        )
    if not 0.0 <= condition < 1.0:
        raise ValueError(f"condition must be from 0 to below 1, got {condition}")
