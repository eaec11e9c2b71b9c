"""Writes packages of apk-tools 3, the package manager of OpenWrt 25.12 and later.

The format is "ADB": a heap of values that refer to each other by offset, followed by the contents of
the files. All integers are little-endian. `tests/router/apk.rs` compares the bytes with those of a
package that apk-tools itself made.
"""

import hashlib
import struct
import subprocess

import deflate

# Types of values: the top 4 bits of a u32.
INT, INT_32, INT_64 = 1, 2, 3
BLOB_8, BLOB_16, BLOB_32 = 8, 9, 10
LIST = 14
NULL = 0

# Kinds of blocks.
BLOCK_ADB, BLOCK_SIGNATURE, BLOCK_DATA = 0, 1, 2
# The identifier of SHA-512 in a signature.
SHA512 = 4

# Slots of a package's description.
NAME, VERSION, ID, DESCRIPTION, ARCHITECTURE, LICENSE = 1, 2, 3, 4, 5, 6
ORIGIN, MAINTAINER, URL = 7, 8, 9
INSTALLED_SIZE, DEPENDS = 12, 15
# The comparison of a dependency on the absence of a package.
CONFLICT = 0x17

SCRIPT_SLOTS = {
    "pre-install": 2,
    "post-install": 3,
    "pre-deinstall": 4,
    "post-deinstall": 5,
    "pre-upgrade": 6,
    "post-upgrade": 7,
}


class Heap:
    """The values of a package. Equal pieces are stored once."""

    def __init__(self):
        # Four bytes of versions, and the root value.
        self.bytes = bytearray(8)
        self.offsets = {}

    def _piece(self, piece, align):
        offset = self.offsets.get(piece)
        if offset is None or offset % align:
            offset = self._append(piece, align)
            self.offsets[piece] = offset
        return offset

    def _append(self, piece, align):
        self.bytes += bytes(-len(self.bytes) % align)
        offset = len(self.bytes)
        self.bytes += piece
        return offset

    def number(self, number):
        if number < 1 << 28:
            return INT << 28 | number
        if number < 1 << 32:
            return INT_32 << 28 | self._piece(struct.pack("<I", number), 4)
        return INT_64 << 28 | self._piece(struct.pack("<Q", number), 4)

    def blob(self, blob):
        if not blob:
            return NULL
        for kind, form, limit, align in (
            (BLOB_8, "<B", 1 << 8, 1),
            (BLOB_16, "<H", 1 << 16, 2),
            (BLOB_32, "<I", 1 << 32, 4),
        ):
            if len(blob) < limit:
                piece = struct.pack(form, len(blob)) + blob
                return kind << 28 | self._piece(piece, align)
        raise ValueError("a blob is too long")

    def text(self, text):
        return self.blob(text.encode())

    def list(self, values):
        """Stores an array, or an object whose slots are 1, 2, …"""
        values = list(values)
        while values and values[-1] == NULL:
            values.pop()
        if not values:
            return NULL
        values.insert(0, len(values) + 1)
        piece = struct.pack(f"<{len(values)}I", *values)
        return LIST << 28 | self._piece(piece, 4)

    def object(self, slots):
        """Stores an object given as {slot: value}."""
        return self.list(slots.get(slot, NULL) for slot in range(1, max(slots) + 1))

    def reserve_id(self):
        """Stores the package's identity, whose bytes are known at the end."""
        self.id_at = self._append(b"\x14" + bytes(20), 1) + 1
        return BLOB_8 << 28 | self.id_at - 1

    def finish(self, root):
        self.bytes[4:8] = struct.pack("<I", root)
        digest = hashlib.sha256(self.bytes).digest()
        self.bytes[self.id_at : self.id_at + 20] = digest[:20]
        return bytes(self.bytes)


def _acl(heap, mode):
    root = heap.text("root")
    return heap.list([heap.number(mode), root, root])


def _depends(heap, depends):
    objects = []
    for name in sorted(depends, key=lambda name: name.lstrip("!")):
        match = heap.number(CONFLICT) if name.startswith("!") else NULL
        objects.append(heap.list([heap.text(name.lstrip("!")), NULL, match]))
    return heap.list(objects)


def _block(kind, payload):
    block = struct.pack("<I", kind << 30 | 4 + len(payload)) + payload
    return block + bytes(-len(block) % 8)


def _openssl(*words, stdin=b""):
    return subprocess.run(["openssl", *words], input=stdin, stdout=subprocess.PIPE, check=True).stdout


def _signature(key, adb):
    """Returns a signature by the private EC key in the file `key`."""
    public = _openssl("pkey", "-in", key, "-pubout", "-outform", "DER")
    # The key is named by its point on the curve, which is the end of this form: 65 bytes for P-256,
    # 97 for P-384, 133 for P-521, whose forms have 91, 120 and 158 bytes.
    lengths = {91: 65, 120: 97, 158: 133}
    if len(public) not in lengths:
        raise ValueError(f"{key} is no EC key on P-256, P-384 or P-521")
    point = public[-lengths[len(public)] :]
    head = bytes([0, SHA512]) + hashlib.sha512(point).digest()[:16]
    signed = b"pckg" + head + hashlib.sha512(adb).digest()
    return head + _openssl("dgst", "-sha512", "-sign", key, stdin=signed)


def unpacked(info, folders, files, scripts, mtime, key=None):
    """Returns a package before compression.

    `info` has texts by slot, and names of packages in `DEPENDS` ("!name" for a conflict); `folders` is
    {path: mode} without the root; `files` is {path: (mode, bytes)}; `scripts` is {moment: text}. Paths
    have no leading slash, and each file's folder is in `folders`.
    """
    heap = Heap()
    contents = []
    slots = {slot: heap.text(text) for slot, text in sorted(info.items()) if slot != DEPENDS}
    size = sum(len(content) for _, content in files.values())
    slots[INSTALLED_SIZE] = heap.number(max(size, 1))
    slots[DEPENDS] = _depends(heap, info.get(DEPENDS, []))
    paths = {"": 0o755, **folders}
    stored = []
    for number, (path, mode) in enumerate(sorted(paths.items(), key=lambda it: it[0].encode()), 1):
        names = (name for name in files if name.rpartition("/")[0] == path)
        members = []
        for name in sorted(names, key=str.encode):
            mode_of_file, content = files[name]
            base = heap.text(name.rpartition("/")[2])
            digest = heap.blob(hashlib.sha256(content).digest())
            time = heap.number(mtime)
            acl = _acl(heap, mode_of_file)
            members.append(heap.list([base, acl, heap.number(len(content)), time, digest]))
            if content:
                place = struct.pack("<II", number, len(members))
                contents.append(_block(BLOCK_DATA, place + content))
        path = heap.text(path)
        acl = _acl(heap, mode)
        stored.append(heap.list([path, acl, heap.list(members)]))
    slots[ID] = heap.reserve_id()
    info = heap.object(slots)
    folders = heap.list(stored)
    texts = {SCRIPT_SLOTS[moment]: heap.text(text) for moment, text in scripts.items()}
    scripts = heap.object(texts) if texts else NULL
    adb = heap.finish(heap.list([info, folders, scripts]))
    blocks = [_block(BLOCK_ADB, adb)]
    if key:
        blocks.append(_block(BLOCK_SIGNATURE, _signature(key, adb)))
    return b"ADB.pckg" + b"".join(blocks + contents)


def packed(package):
    """Compresses a package as the file format demands."""
    return b"ADBd" + deflate.raw(package)
