#!/usr/bin/env python3
"""Verifies a Keywright audit log, from docs/audit.md alone; Python 3.8, standard library. It prints what
it found and exits with 0 if the lines are those that were signed, else with 1 and the first entry concerned.
Without --key (a key or a file that holds one) the log's own first key is believed, and printed."""
import argparse, base64, functools, hashlib, os, re, sys
class Finding(Exception):
    def __init__(self, kind, entry, reason): super().__init__("entry %d: %s: %s" % (entry, kind, reason))
sha256 = lambda b: hashlib.sha256(b).digest()

# Curves: points are (x, y) or None; slow and plain, which is enough for verifying.
Q, QL, QD = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493, -121665 * pow(121666, -1, 2**255 - 19)
def ed_add(a, b):  # extended coordinates, RFC 8032 section 5.1.4
    A, B = (a[1] - a[0]) * (b[1] - b[0]) % Q, (a[1] + a[0]) * (b[1] + b[0]) % Q
    C, D = 2 * a[3] * b[3] * QD % Q, 2 * a[2] * b[2] % Q
    E, F, G, H = B - A, D - C, D + C, B + A
    return E * F % Q, G * H % Q, F * G % Q, E * H % Q
def multiply(add, zero, n, point):
    result = zero
    while n:
        if n & 1: result = add(result, point)
        point, n = add(point, point), n >> 1
    return result
def ed_decode(b):  # section 5.1.3
    y, sign = int.from_bytes(b, "little") & (1 << 255) - 1, b[31] >> 7
    x2 = (y * y - 1) * pow(QD * y * y + 1, -1, Q) % Q
    x = pow(x2, (Q + 3) // 8, Q)
    if (x * x - x2) % Q: x = x * pow(2, (Q - 1) // 4, Q) % Q
    if (x * x - x2) % Q or y >= Q: return None
    if x & 1 != sign: x = Q - x
    return x, y, 1, x * y % Q
ED_BASE = ed_decode((4 * pow(5, -1, Q) % Q).to_bytes(32, "little"))
def ed25519(key, text, sig):
    A, s = ed_decode(key), int.from_bytes(sig[32:], "little")
    if A is None or len(sig) != 64 or s >= QL: return False
    h = int.from_bytes(hashlib.sha512(sig[:32] + key + text).digest(), "little") % QL
    x, y, z, _ = ed_add(multiply(ed_add, (0, 1, 1, 0), s, ED_BASE), multiply(ed_add, (0, 1, 1, 0), h, (Q - A[0], A[1], 1, Q - A[3])))
    return (y * pow(z, -1, Q) % Q | (x * pow(z, -1, Q) % Q & 1) << 255).to_bytes(32, "little") == sig[:32]
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N, B = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551, 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b
BASE = (0x6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296,
        0x4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5)
SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")  # before x and y
def p256_add(a, b):
    if a is None or b is None: return a or b
    if a[0] == b[0] and (a[1] + b[1]) % P == 0: return None
    m = (3 * a[0] ** 2 - 3) * pow(2 * a[1], -1, P) if a == b else (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (m * m - a[0] - b[0]) % P
    return x, (m * (a[0] - x) - a[1]) % P
def p256(spki, text, sig):
    x, y = int.from_bytes(spki[27:59], "big"), int.from_bytes(spki[59:], "big")
    if not spki.startswith(SPKI) or len(spki) != 91 or (y * y - x ** 3 + 3 * x - B) % P: return False
    if sig[:1] != b"\x30" or len(sig) < 8 or sig[1] != len(sig) - 2 or sig[2] != 2: return False  # DER: SEQUENCE of two INTEGERs
    r, rest = int.from_bytes(sig[4:4 + sig[3]], "big", signed=True), sig[4 + sig[3]:]
    s = int.from_bytes(rest[2:], "big", signed=True)
    if rest[:2] != bytes([2, max(0, len(rest) - 2)]) or not (0 < r < N and 0 < s < N): return False
    w, e = pow(s, -1, N), int.from_bytes(sha256(text), "big")
    R = p256_add(multiply(p256_add, None, e * w % N, BASE), multiply(p256_add, None, r * w % N, (x, y)))
    return R is not None and R[0] % N == r
# Signed notes, keys, checkpoints. A note is (text, [(name, id, signature)]); a key is (name, id, type, public key).
def need(condition, what):
    if not condition: raise ValueError(what)
def b64(text):
    raw = base64.b64decode(text, validate=True)
    need(base64.b64encode(raw).decode() == text, "not base64")
    return raw
def parse_note(raw):
    text, _, lines = raw.decode().rpartition("\n\n")
    found = re.fullmatch(r"(?:— [^\s+]+ \S+\n)+", lines)
    need(text and found and not re.search("[\x00-\x09\x0b-\x1f]", raw.decode()), "not a signed note")
    sigs = [(name, b64(sig)) for name, sig in (line.split(" ")[1:] for line in lines.splitlines())]
    return text + "\n", [(name, sig[:4], sig[4:]) for name, sig in sigs]
def parse_key(vkey):
    name, ident, data = vkey.split("+", 2)
    raw = b64(data)
    want = sha256(raw[1:]) if raw[0] == 2 else sha256(name.encode() + b"\n" + raw)
    need(raw[0] in (1, 2) and want[:4].hex() == ident, "not a key: " + vkey)
    return name, want[:4], raw[0], raw[1:]
def signed_by(note, key):
    good = [(p256 if key[2] == 2 else ed25519)(key[3], note[0].encode(), sig) for name, ident, sig in note[1] if (name, ident) == key[:2]]
    return bool(good) and all(good)
def parse_checkpoint(raw):
    note = parse_note(raw)
    m = re.fullmatch(r"(\S+)\n(0|[1-9]\d*)\n(\S+)\nkeywright-epoch (0|[1-9]\d*)\n", note[0])
    need(m and len(b64(m[3])) == 32, "not a checkpoint")
    return note, m[1], int(m[2]), b64(m[3])
def parse_succession(raw):  # [(key, from, reason of a break or None)]
    parts, members = raw.decode()[:-1].split("\n\n"), []
    for i in range(0, len(parts), 2):
        note = parse_note(("\n\n".join(parts[i:i + 2]) + "\n").encode())
        m = re.fullmatch(r"keywright-audit-key/v1\norigin (\S+)\nfrom (0|[1-9]\d*)\nkey (\S+)\n(?:break (.+)\n)?", note[0])
        need(m, "not a key of a succession")
        key, start, before = parse_key(m[3]), int(m[2]), members[-1:]
        need(key[0] == m[1] and signed_by(note, key) and (before or not start and not m[4]), "a key does not sign itself")
        for old, since, _ in before:
            need(key[0] == old[0] and start >= since and key not in [k for k, _, _ in members], "a key is not the next one's")
            need(m[4] or signed_by(note, old), "a key is not signed by the one before")
        members.append((key, start, m[4]))
    return members
# The tree (RFC 6962). A frontier is {level: root of the complete subtree} and a size.
class Tree:
    def __init__(self, path): self.file = open(path, "rb") if os.path.exists(path) else None
    def stored(self, level, n):  # 32 bytes, less if they are not there
        n = (n + 1 << level) - 1
        if self.file: self.file.seek(32 * (2 * n - bin(n).count("1") + level))
        return self.file.read(32) if self.file else b""
    def frontier(self, size): return {l: self.stored(l, (size >> l) - 1) for l in range(64) if size >> l & 1}
def push(frontier, level, h):
    while level in frontier: h, level = sha256(b"\1" + frontier.pop(level) + h), level + 1
    frontier[level] = h
def root(frontier):
    edge = [frontier[level] for level in sorted(frontier)]
    return functools.reduce(lambda right, left: sha256(b"\1" + left + right), edge) if edge else sha256(b"")
def number(line):
    m = re.match(rb'\{"v":1,"seq":(0|[1-9]\d{0,19}),', line)
    return int(m[1]) if m and int(m[1]) < 2**64 else None

def verify(folder, key, kept_raw):
    path = lambda name: os.path.join(folder, name)
    def read(name, parse, what, raw=None):
        if raw is None and not os.path.exists(path(name)): raise Finding("missing", 0, "there is no file " + name)
        try: return parse(open(path(name), "rb").read() if raw is None else raw)
        except (ValueError, IndexError, TypeError) as e: raise Finding("malformed", 0, "%s: %s" % (what, e))
    members = read("keys", parse_succession, "keys")
    if key is None:
        key = members[0][0]
        print("no key was given; believed is %s+%s+%s" % (key[0], key[1].hex(), base64.b64encode(bytes([key[2]]) + key[3]).decode()))
    if key[0] != members[0][0][0]: raise Finding("foreign", 0, "the keys are of another log")
    at = next((i for i, member in enumerate(members) if member[0] == key), None)
    if at is None: raise Finding("wrong-key", 0, "the trusted key is not among the log's")
    end = next((i for i in range(at + 1, len(members)) if members[i][2]), len(members))
    def open_checkpoint(raw, what):
        note, origin, size, hash = read("checkpoint", parse_checkpoint, what, raw)
        if origin != key[0]: raise Finding("foreign", 0, what + " is of another log")
        spans = [(k, start, members[i + 1][1] if i + 1 < len(members) else 2**63) for i, (k, start, _) in enumerate(members)][at:end]
        known = [k for k, start, stop in spans if start <= size <= stop and any(s[:2] == k[:2] for s in note[1])]
        if known and all(signed_by(note, k) for k in known): return size, hash
        for k, start, reason in members[end:]:
            if reason and signed_by(note, k): raise Finding("broken", start, what + " is signed behind a declared break: " + reason)
        raise Finding("wrong-key", 0, what + " is not signed by a trusted key")
    signed, signed_root = open_checkpoint(None, "the checkpoint")
    kept, kept_root = open_checkpoint(kept_raw, "the kept checkpoint") if kept_raw is not None else (None, None)
    first = read("first", lambda raw: int(re.fullmatch(rb"(\d+)\n", raw)[1]), "first") if os.path.exists(path("first")) else 0
    names = sorted(n for n in os.listdir(folder) if n.endswith(".jsonl"))
    if not all(re.fullmatch(r"\d{16,20}\.jsonl", n) for n in names): raise Finding("malformed", 0, "a .jsonl that is no segment")
    while len(names) > 1 and int(names[1][:-6]) <= first: names.pop(0)
    if first > signed: raise Finding("removed", signed, "the log begins behind what is signed")
    tree, size, edge = Tree(path("tree")), first, (first & -first).bit_length() - 1
    if first and len(tree.stored(edge, (first >> edge) - 1)) < 32: raise Finding("missing", 0, "hashes of dropped lines")
    frontier, begun, roots, differs, problem = tree.frontier(first), tree.frontier(first), {}, None, None
    if size in (signed, kept): roots[size] = root(frontier)
    for i, name in enumerate(names):
        start = int(name[:-6])
        if start != size and not problem: problem = ("missing" if start > size else "inserted", min(size, start), name + " stands here")
        if problem: break
        with open(path(name), "rb") as f:
            for line in iter(lambda: f.readline((16 << 20) + 2), b""):
                got, torn, text = number(line), line[-1:] != b"\n", line.rstrip(b"\n")
                if torn and len(line) <= 16 << 20:
                    if i + 1 < len(names) or size < signed: problem = ("cut", size, "the line does not end")
                elif got is None or torn or len(text) > 16 << 20: problem = ("changed", size, "no line of an audit log")
                elif got != size:
                    after = number(f.readline())
                    kind = "changed" if after == size + 1 else "inserted" if got < size else "reordered" if after == size else "removed"
                    problem = (kind, size, "a line says that it is entry %d" % got)
                if torn or problem: break
                leaf = sha256(b"\0" + text)
                there = tree.stored(0, size) if differs is None else b""
                if len(there) == 32 and there != leaf: differs = size
                push(frontier, 0, leaf)
                size += 1
                if size in (signed, kept): roots[size] = root(frontier)
    if not problem and size < signed: problem = ("cut", size, "the checkpoint covers %d entries" % signed)
    if not problem and roots[signed] != signed_root:
        since = kept if kept is not None and kept < signed and roots.get(kept) == kept_root else 0
        problem = ("changed", since, "from here to %d, lines and hashes together" % (signed - 1))
    if problem and differs is not None and differs < max(problem[1], signed):
        problem = ("changed", differs, "its hash is another one than in the tree")
    if problem: raise Finding(*problem)
    if kept is not None:
        if size < kept: raise Finding("cut", size, "the kept checkpoint covers %d entries" % kept)
        if kept < first:  # grow the kept tree by whole subtrees up to the first line that is there
            grown, at = tree.frontier(kept), kept
            while at < first:
                level = min((at & -at).bit_length() - 1 if at else 63, (first - at).bit_length() - 1)
                push(grown, level, tree.stored(level, at >> level))
                at += 1 << level
            roots[kept] = root(tree.frontier(kept)) if grown == begun else None
        since = differs if differs is not None and differs < kept else 0
        if roots[kept] != kept_root: raise Finding("forked", since, "another history than the kept checkpoint's")
        if signed < kept: raise Finding("older", signed, "the checkpoint is older than the kept one, of %d entries" % kept)
    print("ok: entries %d to %d are those that were signed; %d newer ones are not protected" % (first, signed - 1, size - signed))

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in "dir", "--key", "--checkpoint": parser.add_argument(name)
    given = parser.parse_args()
    key = given.key and parse_key(open(given.key).read().strip() if os.path.exists(given.key) else given.key)
    try: verify(given.dir, key, open(given.checkpoint, "rb").read() if given.checkpoint else None)
    except Finding as finding: print(finding); sys.exit(1)
