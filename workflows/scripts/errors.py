"""The table of errors behind a learning curve."""

from csv_tables import rounded, write_table


def write_errors(path, curve, digits, resolution=0.0):
    """Write the error of each training size and each shuffle.

    Parameters
    ----------
    path : path_like
        Table to write: ``n_train,repeat,rmse_percent``.
    curve : LearningCurve
        What was found.
    digits : int
        Significant digits printed.
    resolution : float
        Smallest error in percent told from zero.
    """
    rows = [
        (n, repeat, rounded(float(error), digits, resolution))
        for n, errors in zip(
            curve.n_train.tolist(), curve.rmse_percent_each.T, strict=True
        )
        for repeat, error in enumerate(errors)
    ]
    write_table(path, ["n_train", "repeat", "rmse_percent"], rows)
