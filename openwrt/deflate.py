"""Compresses with deflate, 3 % smaller than zlib does at its best."""

import subprocess

# Bytes of a gzip file before and after its deflate stream.
HEAD, TAIL = 10, 8


def gzip(content):
    """Returns the gzip file of these bytes, without name and time. Always the same for the same bytes."""
    command = ["libdeflate-gzip", "-12", "-n", "-c"]
    try:
        return subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout
    except FileNotFoundError as e:
        raise OSError("libdeflate-gzip is missing; Debian's package libdeflate-tools has it") from e


def raw(content):
    """Returns the deflate stream of these bytes."""
    return gzip(content)[HEAD:-TAIL]
