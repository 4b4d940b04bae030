# SPDX-License-Identifier: Apache-2.0
"""A VNC viewer for tests: RFB 3.8, no or VNC authentication, raw pixels. Source: RFC 6143.

    with rfb.Viewer(("127.0.0.1", port), password="secret") as viewer:
        assert viewer.picture() == rfb.read_ppm(path)
"""

import socket
import struct

import drover


RESIZE = -223  # DesktopSize


class Refused(Exception):
    """The server did not let us in; the text is its reason."""


# --- DES, as VNC uses it: one block at a time, the bits of the key mirrored ---

IP = [58, 50, 42, 34, 26, 18, 10, 2, 60, 52, 44, 36, 28, 20, 12, 4,
      62, 54, 46, 38, 30, 22, 14, 6, 64, 56, 48, 40, 32, 24, 16, 8,
      57, 49, 41, 33, 25, 17, 9, 1, 59, 51, 43, 35, 27, 19, 11, 3,
      61, 53, 45, 37, 29, 21, 13, 5, 63, 55, 47, 39, 31, 23, 15, 7]
FP = [IP.index(bit) + 1 for bit in range(1, 65)]
EXPAND = [32, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9, 8, 9, 10, 11, 12, 13, 12, 13, 14, 15, 16, 17,
          16, 17, 18, 19, 20, 21, 20, 21, 22, 23, 24, 25, 24, 25, 26, 27, 28, 29, 28, 29, 30, 31,
          32, 1]
PERMUTE = [16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10,
           2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25]
CHOICE_1 = [57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35, 27, 19,
            11, 3, 60, 52, 44, 36, 63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22, 14, 6,
            61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4]
CHOICE_2 = [14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13,
            2, 41, 52, 31, 37, 47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50,
            36, 29, 32]
SHIFTS = [1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1]
BOXES = [[int(digit, 16) for digit in text] for text in (
    "e4d12fb83a6c59070f74e2d1a6cb953841e8d62bfc973a50fc8249175b3ea06d",
    "f18e6b34972dc05a3d47f28ec01a69b50e7ba4d158c6932fd8a13f42b67c05e9",
    "a09e63f51dc7b428d709346a285ecbf1d6498f30b12c5ae71ad069874fe3b52c",
    "7de3069a1285bc4fd8b56f03472c1ae9a690cb7df13e52843f06a1d8945bc72e",
    "2c417ab6853fd0e9eb2c47d150fa3986421bad78f9c5630eb8c71e2d6f09a453",
    "c1af92680d34e75baf427c9561de0b389ef528c3704a1db6432c95fabe17608d",
    "4b2ef08d3c975a61d0b7491ae35c2f8614bdc37eaf6805926bd814a7950fe23c",
    "d2846fb1a93e50c71fd8a374c56b0e927b419ce206adf35821e74a8dfc90356b")]


def _pick(bits, table):
    return [bits[at - 1] for at in table]


def _bits(data):
    return [byte >> (7 - at) & 1 for byte in data for at in range(8)]


def _keys(key):
    bits = _pick(_bits(key), CHOICE_1)
    left, right = bits[:28], bits[28:]
    for count in SHIFTS:
        left, right = left[count:] + left[:count], right[count:] + right[:count]
        yield _pick(left + right, CHOICE_2)


def _round(half, key):
    mixed = [a ^ b for a, b in zip(_pick(half, EXPAND), key)]
    out = []
    for at, box in enumerate(BOXES):
        six = mixed[6 * at:6 * at + 6]
        row, column = six[0] * 2 + six[5], six[1] * 8 + six[2] * 4 + six[3] * 2 + six[4]
        out += [box[16 * row + column] >> shift & 1 for shift in (3, 2, 1, 0)]
    return _pick(out, PERMUTE)


def des(key, block):
    bits = _pick(_bits(block), IP)
    left, right = bits[:32], bits[32:]
    for one in _keys(key):
        left, right = right, [a ^ b for a, b in zip(left, _round(right, one))]
    bits = _pick(right + left, FP)
    return bytes(int("".join(map(str, bits[at:at + 8])), 2) for at in range(0, 64, 8))


def answer(password, challenge):
    key = password.encode()[:8].ljust(8, b"\0")
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in key)
    return des(key, challenge[:8]) + des(key, challenge[8:])


# --- the viewer ---


class Viewer:
    """One session. where: ("127.0.0.1", port), or a path of a unix socket."""

    def __init__(self, where, password=None, seconds=10):
        self.sock = (drover.unix_connect(where) if isinstance(where, str)
                     else socket.create_connection(where, seconds))
        self.sock.settimeout(seconds)
        try:
            self._enter(password)
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def take(self, count):
        data = bytearray()
        while len(data) < count:
            got = self.sock.recv(min(count - len(data), 1 << 20))
            if not got:
                raise EOFError("the VNC server closed the session")
            data += got
        return bytes(data)

    def _enter(self, password):
        assert self.take(12) == b"RFB 003.008\n"
        self.sock.sendall(b"RFB 003.008\n")
        kinds = self.take(self.take(1)[0])
        self.kinds = list(kinds)
        if 2 in kinds:
            if password is None:
                raise Refused("a password is wanted")
            self.sock.sendall(b"\2")
            self.sock.sendall(answer(password, self.take(16)))
        else:
            self.sock.sendall(b"\1")
        if struct.unpack(">I", self.take(4))[0]:
            raise Refused(self.take(struct.unpack(">I", self.take(4))[0]).decode())
        self.sock.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self.take(4))
        self.take(16)
        self.name = self.take(struct.unpack(">I", self.take(4))[0]).decode()
        # 32 bits a pixel, blue first: red at 16, green at 8, blue at 0; raw only.
        self.sock.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255,
                                      16, 8, 0))
        self.sock.sendall(struct.pack(">BxHii", 2, 2, 0, RESIZE))

    def ask(self, incremental=False):
        self.sock.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def update(self):
        """[(x, y, width, height, pixels)] of the next update; None: the screen has a new size."""
        while True:
            kind = self.take(1)[0]
            if kind == 0:
                break
            if kind == 2:  # bell
                continue
            if kind == 3:
                self.take(struct.unpack(">xxxI", self.take(7))[0])
                continue
            raise AssertionError(f"message {kind} from the server")
        found = []
        for _ in range(struct.unpack(">xH", self.take(3))[0]):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.take(12))
            if encoding == RESIZE:
                self.width, self.height = width, height
                return None
            assert encoding == 0, encoding
            found.append((x, y, width, height, self.take(width * height * 4)))
        return found

    def picture(self):
        """(width, height, RGB bytes) of the whole screen."""
        missing = None
        while missing is None or missing > 0:
            if missing is None:
                rows = [bytearray(self.width * 3) for _ in range(self.height)]
                missing = self.width * self.height
                self.ask()
            update = self.update()
            if update is None:
                missing = None
            for x, y, width, height, pixels in update or []:
                missing -= width * height
                rgb = bytearray(width * height * 3)
                rgb[0::3], rgb[1::3], rgb[2::3] = pixels[2::4], pixels[1::4], pixels[0::4]
                for line in range(height):
                    rows[y + line][3 * x:3 * (x + width)] = \
                        rgb[3 * width * line:3 * width * (line + 1)]
        return self.width, self.height, b"".join(map(bytes, rows))

    def ended(self, seconds):
        """Whether the server ended the session within that time."""
        self.sock.settimeout(seconds)
        try:
            return self.sock.recv(1) == b""
        except (TimeoutError, socket.timeout):
            return False
        except ConnectionResetError:
            return True


def read_ppm(path):
    """(width, height, RGB bytes) of a screendump."""
    data = path.read_bytes()
    kind, width, height, most, pixels = _ppm(data)
    assert (kind, most) == (b"P6", b"255")
    return int(width), int(height), pixels


def _ppm(data):
    words, at = [], 0
    while len(words) < 4:
        end = at
        while data[end:end + 1] not in (b" ", b"\n", b"\t"):
            end += 1
        words.append(data[at:end])
        at = end + 1
    return (*words, data[at:])
