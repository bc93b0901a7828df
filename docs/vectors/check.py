#!/usr/bin/env python3
"""Checks the vectors beside this file, by docs/formats.md alone.

It shares no code with narwharf and needs nothing but Python 3.8: an Ed25519
verifier of thirty lines is part of it. It is slow and not constant-time, which
matters to nobody who only verifies.
"""
import base64
import binascii
import hashlib
import json
import pathlib
import re

HERE = pathlib.Path(__file__).parent


class Bad(Exception):
    """The text is not what it has to be."""


def need(condition, why):
    if not condition:
        raise Bad(why)


# ---- Ed25519, RFC 8032

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)  # of -1


def add(a, b):
    """Adds two points in extended coordinates X, Y, Z, T."""
    t, u = (a[1] - a[0]) * (b[1] - b[0]), (a[1] + a[0]) * (b[1] + b[0])
    v, w = 2 * a[3] * b[3] * D, 2 * a[2] * b[2]
    e, f, g, h = u - t, w - v, w + v, u + t
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(n, a):
    sum_ = (0, 1, 1, 0)
    while n:
        if n & 1:
            sum_ = add(sum_, a)
        a, n = add(a, a), n >> 1
    return sum_


def point(data):
    """Reads the 32 bytes of a point, None if they are none."""
    y = int.from_bytes(data, "little")
    odd, y = y >> 255, y & (2**255 - 1)
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if x * x % P != x2:
        x = x * ROOT % P
    if y >= P or x * x % P != x2 or (x == 0 and odd):
        return None
    if x & 1 != odd:
        x = P - x
    return (x, y, 1, x * y % P)


def text_of(a):
    z = pow(a[2], P - 2, P)
    x, y = a[0] * z % P, a[1] * z % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def verify(key, message, signature):
    a, s = point(key), int.from_bytes(signature[32:], "little")
    if a is None or s >= L:
        return False
    h = hashlib.sha512(signature[:32] + key + message).digest()
    k = int.from_bytes(h, "little") % L
    minus_a = (P - a[0], a[1], a[2], P - a[3])
    return text_of(add(times(s, BASE), times(k, minus_a))) == signature[:32]


def public_of(seed):
    h = bytearray(hashlib.sha512(seed).digest()[:32])
    h[0] &= 248
    h[31] = h[31] & 127 | 64
    return text_of(times(int.from_bytes(h, "little"), BASE))


# ---- ECDSA over P-256 with SHA-256, FIPS 186-5

P256 = 2**256 - 2**224 + 2**192 + 2**96 - 1
N256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B256 = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G256 = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296, 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)


def add256(a, b):
    """Adds two points; None is the one at infinity."""
    if a is None or b is None:
        return b if a is None else a
    if a[0] == b[0]:
        if (a[1] + b[1]) % P256 == 0:
            return None
        m = (3 * a[0] * a[0] - 3) * pow(2 * a[1], P256 - 2, P256)
    else:
        m = (b[1] - a[1]) * pow(b[0] - a[0], P256 - 2, P256)
    x = (m * m - a[0] - b[0]) % P256
    return x, (m * (a[0] - x) - a[1]) % P256


def times256(n, a):
    sum_ = None
    while n:
        if n & 1:
            sum_ = add256(sum_, a)
        a, n = add256(a, a), n >> 1
    return sum_


def point256(data):
    """Reads the 33 bytes of a compressed point, None if they are none."""
    x = int.from_bytes(data[1:], "big")
    y2 = (x**3 - 3 * x + B256) % P256
    y = pow(y2, (P256 + 1) // 4, P256)
    if len(data) != 33 or data[0] not in (2, 3) or x >= P256 or y * y % P256 != y2:
        return None
    return x, y if y & 1 == data[0] & 1 else P256 - y


def verify256(key, message, signature):
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    a = point256(key)
    if a is None or not 0 < r < N256 or not 0 < s <= N256 // 2:
        return False
    e, w = int.from_bytes(hashlib.sha256(message).digest(), "big"), pow(s, N256 - 2, N256)
    at = add256(times256(e * w % N256, G256), times256(r * w % N256, a))
    return at is not None and at[0] % N256 == r


# ---- JSON as it has to be

NUMBER = 2**53 - 1
DEPTH = 8
MEMBERS = 64


def whole(digits):
    n = int(digits) if len(digits) < 20 else NUMBER + 1
    need(abs(n) <= NUMBER and str(n) == digits, "not a whole number")
    return n


def fraction(_):
    raise Bad("not a whole number")


def members(pairs):
    names = [name for name, _ in pairs]
    need(len(set(names)) == len(names), "a name twice")
    need(len(names) <= MEMBERS, "too many names")
    return dict(pairs)


def deep(value, depth=0):
    if isinstance(value, (dict, list)):
        need(depth < DEPTH, "nested too deep")
        items = list(value) + list(value.values()) if isinstance(value, dict) else value
        for item in items:
            deep(item, depth + 1)
    elif isinstance(value, str):
        need(not re.search("[\ud800-\udfff]", value), "half of a surrogate pair")


def parse(data):
    """Reads an object."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=members, parse_int=whole, parse_float=fraction, parse_constant=fraction)
    except ValueError as e:  # UnicodeDecodeError and JSONDecodeError are
        raise Bad(e) from None
    need(isinstance(value, dict), "not an object")
    deep(value)
    return value


def only(value, *known):
    """Refuses other spellings of known names."""
    known += ("crit",)
    need("crit" not in value, "critical")
    for name in value:
        folded = name.replace("\u017f", "s").replace("\u212a", "k").lower()
        need(name in known or folded not in known, "another case")


def get(value, name, kind):
    need(name in value, name + " is missing")
    need(type(value[name]) is kind, name + " is of another type")
    return value[name]


def match(pattern, value, why):
    need(re.fullmatch(pattern, value, re.ASCII), why)
    return value


def decode64(value):
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as e:
        raise Bad(e) from None
    need(base64.b64encode(data).decode() == value, "not the one form of base64")
    return data


def digest(value):
    match("sha256:[0-9a-f]{64}", value, "not a digest")
    need(value != "sha256:" + 64 * "0", "no digest")
    return bytes.fromhex(value[7:])


# ---- head, entry, tree

NAME = "[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}"
TIME = r"(19[7-9]\d|[2-9]\d{3})-(\d\d)-(\d\d)T([01]\d|2[0-3]):([0-5]\d):([0-5]\d)Z"


def time(value):
    m = re.fullmatch(TIME, value, re.ASCII)
    need(m, "not a time")
    year, month, day = int(m[1]), int(m[2]), int(m[3])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = [0, 31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    need(1 <= month <= 12 and 1 <= day <= days[month], "no such day")
    return value  # times in this form are in order as strings


def parse_head(data):
    need(len(data) <= 16 << 10, "too long")
    h = parse(data)
    need(get(h, "v", int) == 1, "another version")
    only(h, "v", "origin", "channel", "seq", "targets", "order", "rollback", "created", "expires", "meta", "keys_version")
    need("keys_version" not in h or get(h, "keys_version", int) >= 0, "keys_version")
    match("[a-zA-Z0-9][a-zA-Z0-9._:-]{0,252}(/%s){1,8}" % NAME, get(h, "origin", str), "origin")
    match("[a-z0-9][a-z0-9._-]{0,62}", get(h, "channel", str), "channel")
    need(get(h, "seq", int) >= 1, "seq")
    t = get(h, "targets", dict)
    only(t, "count", "root")
    need(1 <= get(t, "count", int) <= 100000, "count")
    digest(get(t, "root", str))
    if "order" in h:
        get(h, "order", int)
    get(h, "rollback", bool)
    created = time(get(h, "created", str))
    need("expires" in h, "expires is missing")
    if h["expires"] is not None:
        need(time(get(h, "expires", str)) > created, "expires before it was created")
    if "meta" in h:
        need(len(get(h, "meta", dict)) <= 32, "too much meta")
        for name, value in h["meta"].items():
            match("[a-zA-Z0-9][a-zA-Z0-9._:/-]{0,62}", name, "name in meta")
            need(type(value) is str and len(value.encode()) <= 1024, "value in meta")
            need(not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", value), "control character")
    return h


def store_path(value):
    """Splits a full path into store directory and base name."""
    folder, _, base = value.rpartition("/")
    match(r"(/[!-+\--.0-:<-~]+)+", folder, "store directory")
    need(len(folder) <= 255 and not {".", ".."} & set(folder.split("/")), "store directory")
    match(r"[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+._?=-]{1,211}", base, "store path")
    need(base[33:].split("-")[0] not in (".", ".."), "store path")
    return folder, base


def parse_entry(data):
    need(len(data) <= 4096, "too long")
    e = parse(data)
    only(e, "target", "store_path", "closure", "system", "action")
    match(r"\*|[a-zA-Z0-9][a-zA-Z0-9._:-]{0,126}", get(e, "target", str), "target")
    store_path(get(e, "store_path", str))
    digest(get(e, "closure", str))
    match("[a-z0-9_]{1,32}-[a-z0-9_]{1,32}", get(e, "system", str), "system")
    need(get(e, "action", str) in ("auto", "switch", "boot", "test", "dry-activate", "reboot"), "action")
    return e


def leaf_hash(leaf):
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def root_of(leaves):
    """MTH of RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(root_of(leaves[:k]), root_of(leaves[k:]))


def root_by_path(leaf, index, count, path):
    """The root that an audit path leads to, RFC 9162, section 2.1.3.2."""
    need(0 <= index < count, "index")
    fn, sn, r = index, count - 1, leaf_hash(leaf)
    for p in path:
        need(sn != 0, "the path is too long")
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0, "the path is too short")
    return r


# ---- envelope, pointer, release

def statement(kind, payload):
    return b"%s\n%d\n%s" % (kind, len(payload), payload)


def parse_envelope(e):
    only(e, "payload", "signatures")
    payload = decode64(get(e, "payload", str))
    need(1 <= len(payload) <= 64 << 10, "size of the payload")
    signatures = []
    need(len(get(e, "signatures", list)) <= 64, "too many signatures")
    for s in e["signatures"]:
        need(type(s) is dict, "a signature is no object")
        only(s, "key", "sig")
        name, sig = get(s, "key", str), decode64(get(s, "sig", str))
        need(len(sig) == 64, "length of a signature")
        match("[!-9;-~]{1,255}", name, "name of a key")
        signatures.append((name, sig))
    return payload, signatures


def open_envelope(e, trust):
    payload, signatures = parse_envelope(e)
    need(trust["threshold"] >= 1, "a threshold below 1")
    good = set()
    for name, sig in signatures:
        for key in trust["keys"]:
            known, _, data = key.partition(":")
            data = base64.b64decode(data)
            if known == name and data not in good and verify(data, statement(b"narwharf/head/v1", payload), sig):
                good.add(data)
    need(len(good) >= trust["threshold"], "too few good signatures")
    return payload


def check_pointer(data, trust, target):
    need(len(data) <= 272 << 10, "too long")
    p = parse(data)
    only(p, "head", "entry", "index", "proof")
    entry, index = decode64(get(p, "entry", str)), get(p, "index", int)
    need(all(type(h) is str for h in get(p, "proof", list)) and len(p["proof"]) <= 17, "proof")
    path = [decode64(h) for h in p["proof"]]
    need(all(len(h) == 32 for h in path), "proof")
    head = parse_head(open_envelope(get(p, "head", dict), trust))
    need(head["origin"] == trust["origin"] and head["channel"] == trust["channel"], "of another channel")
    root = root_by_path(entry, index, head["targets"]["count"], path)
    need(root == digest(head["targets"]["root"]), "not part of the release")
    e = parse_entry(entry)
    need(e["target"] == target or e["target"] == "*" and head["targets"]["count"] == 1, "for another target")
    return head, e


def check_release(data):
    r = json.loads(data.decode("utf-8"))  # not signed: only its parts are looked at
    need(type(r.get("head")) is dict and type(r.get("entries")) is list, "head or entries are missing")
    raw = json.loads(data.decode("utf-8"), object_pairs_hook=members)
    head = parse_head(parse_envelope(raw["head"])[0])
    need(all(type(e) is str for e in r["entries"]), "an entry is no string")
    leaves = [decode64(e) for e in r["entries"]]
    need(len(leaves) == head["targets"]["count"], "count")
    targets = [parse_entry(leaf)["target"] for leaf in leaves]
    need(all(a < b for a, b in zip(targets, targets[1:])), "order of the targets")
    need("*" not in targets or len(targets) == 1, "* beside others")
    need(root_of(leaves) == digest(head["targets"]["root"]), "another root")
    return head


# ---- keys over time

def parse_key(text):
    """Splits a public key into name, algorithm and bytes."""
    m = re.fullmatch(r"([!-9;-~]+):(ecdsa-p256:)?([A-Za-z0-9+/=]+)", text, re.ASCII)
    need(m, "not a key")
    data = decode64(m[3])
    need(len(data) == 33 and point256(data) if m[2] else len(data) == 32 and point(data), "not a key")
    return m[1], m[2] or "", data


def parse_keys(list_):
    need(1 <= len(list_) <= 32 and all(type(k) is str for k in list_), "keys")
    keys = [parse_key(k) for k in list_]
    need(len({k[1:] for k in keys}) == len(keys), "a key twice")
    return keys


def parse_about_keys(data, kind):
    need(len(data) <= 16 << 10, "too long")
    o = parse(data)
    need(get(o, "v", int) == 1, "another version")
    match("[a-zA-Z0-9][a-zA-Z0-9._:-]{0,252}(/%s){1,8}" % NAME, get(o, "origin", str), "origin")
    match("[a-z0-9][a-z0-9._-]{0,62}", get(o, "channel", str), "channel")
    time(get(o, "created", str))
    o["keys_"] = parse_keys(get(o, "keys", list))
    of, first = ("previous", 1) if kind == "keys" else ("digest", 0)
    need(get(o, "version", int) >= first and of in o, "version")
    need((o["version"] == first) == (o[of] is None), of)
    if o[of] is not None:
        digest(get(o, of, str))
    if kind == "keys":
        only({k: v for k, v in o.items() if k != "keys_"}, "v", "origin", "channel", "version", "previous", "keys", "threshold", "created")
        need(1 <= get(o, "threshold", int) <= len(o["keys"]), "threshold")
    else:
        only({k: v for k, v in o.items() if k != "keys_"}, "v", "origin", "channel", "keys", "version", "digest", "reason", "created")
        need(len(get(o, "reason", str).encode()) <= 1024, "reason")
        need(not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", o["reason"]), "control character")
    return o


def signers(envelope, kind, keys):
    payload, signatures = parse_envelope(envelope)
    text = statement(b"narwharf/%s/v1" % kind, payload)
    good = set()
    for name, sig in signatures:
        for k in keys:
            if k[0] == name and k[1:] not in good and (verify256 if k[1] else verify)(k[2], text, sig):
                good.add(k[1:])
    return len(good)


def walk(w):
    """Where statements and revocations lead: the version, and the keys that count."""
    def read(envelope, kind):
        o = parse_about_keys(parse_envelope(envelope)[0], kind)
        need((o["origin"], o["channel"]) == (w["origin"], w["channel"]), "of another channel")
        o["envelope"], o["of"] = envelope, "sha256:" + hashlib.sha256(parse_envelope(envelope)[0]).hexdigest()
        return o

    known = [read(e, "keys") for e in w["statements"]]
    revoked, vouched = set(), {}
    for e in w["revocations"]:
        o = read(e, "revocation")
        if signers(e, b"revocation", parse_keys(w["recovery"])) == 0:
            continue
        revoked |= {k[1:] for k in o["keys_"]}
        version, of = o["version"], o["digest"]
        while of and version > w["from"] and version not in vouched:
            vouched[version] = of
            below = [s["previous"] for s in known if s["version"] == version and s["of"] == of]
            version, of = version - 1, below[0] if below else None
    version, at, keys, threshold = w["from"], None, parse_keys(w["keys"]), w["threshold"]
    for s in known:
        if s["version"] != version + 1 or (at and s["previous"] != at) or vouched.get(s["version"], s["of"]) != s["of"]:
            continue
        stands = s["version"] in vouched
        count = lambda list_: [k for k in list_ if stands or k[1:] not in revoked]
        if signers(s["envelope"], b"keys", count(keys)) < threshold or signers(s["envelope"], b"keys", count(s["keys_"])) < s["threshold"]:
            continue
        version, at, keys, threshold = s["version"], s["of"], s["keys_"], s["threshold"]
    return version, [k for k in keys if k[1:] not in revoked]


# ---- manifest

def check_manifest(data, root):
    need(1 <= len(data) <= 64 << 20 and data.endswith(b"\n"), "size, or no newline at the end")
    try:
        lines = data.decode("ascii").split("\n")[:-1]
    except UnicodeDecodeError as e:
        raise Bad(e) from None
    stores, paths, total = set(), {}, 0
    for line in lines:
        fields = line.split(";")
        need(len(fields) == 5 and fields[0] == "1", "fields")
        store, base = store_path(fields[1])
        match("sha256:[01][0-9a-df-np-sv-z]{51}", fields[2], "hash")
        need(fields[2] != "sha256:" + 52 * "0", "no hash")
        match("[1-9][0-9]{0,15}", fields[3], "size")
        total += int(fields[3])
        need(total <= NUMBER, "size")
        stores.add(store)
        refs = []
        for ref in fields[4].split(",") if fields[4] else []:
            other, name = store_path(ref)
            stores.add(other)
            refs.append(name)
        need(refs == sorted(set(refs)), "order of references")
        need(not paths or list(paths)[-1] < base and list(paths)[-1][:32] != base[:32], "order of paths")
        paths[base] = refs
    need(len(stores) == 1, "two stores")
    need(root in paths, "the root is missing")
    seen, todo = {root}, [root]
    while todo:
        for ref in paths[todo.pop()]:
            need(ref in paths, "a reference is missing")
            if ref not in seen:
                seen.add(ref)
                todo.append(ref)
    need(len(seen) == len(paths), "a path that the root does not need")
    return stores.pop()


# ---- the files

def load(name):
    return json.loads((HERE / name).read_text("utf-8"))


def check_keys():
    for k in load("keys.json"):
        seed, public = bytes.fromhex(k["seed_hex"]), public_of(bytes.fromhex(k["seed_hex"]))
        assert k["secret"] == k["name"] + ":" + base64.b64encode(seed + public).decode(), k
        assert k["public"] == k["name"] + ":" + base64.b64encode(public).decode(), k
    return len(load("keys.json"))


def check_releases():
    file = load("releases.json")
    for r in file["releases"]:
        leaves = [e.encode() for e in r["entries"]]
        assert check_release(json.dumps(r["release"]).encode()) == json.loads(r["head"]), r["name"]
        assert statement(b"narwharf/head/v1", r["head"].encode()).hex() == r["signed_hex"], r["name"]
        assert [leaf_hash(leaf).hex() for leaf in leaves] == r["leaf_hashes_hex"], r["name"]
        assert "sha256:" + root_of(leaves).hex() == r["root"], r["name"]
        for i, p in enumerate(r["pointers"]):
            head, entry = check_pointer(json.dumps(p["pointer"]).encode(), file["trust"], p["target"])
            assert entry == json.loads(r["entries"][i]) and head["seq"] == 42, r["name"]
    return len(file["releases"])


def check_manifests():
    for m in load("manifests.json"):
        assert "sha256:" + hashlib.sha256(m["text"].encode()).hexdigest() == m["digest"], m["name"]
        assert check_manifest(m["text"].encode(), m["root"]) == m["store_dir"], m["name"]
        assert m["text"].count("\n") == m["paths"], m["name"]
    return len(load("manifests.json"))


def check_cases():
    file = load("cases.json")
    for c in file["cases"]:
        data = bytes.fromhex(c["hex"]) if "hex" in c else c.get("text", "").encode()
        trust = c.get("trust", file["trust"])
        try:
            says = {
                "head": lambda: parse_head(data),
                "entry": lambda: parse_entry(data),
                "envelope": lambda: open_envelope(parse(data), trust),
                "pointer": lambda: check_pointer(data, trust, file["target"]),
                "release": lambda: check_release(data),
                "manifest": lambda: check_manifest(data, c["root"]),
            }[c["what"]]()
            why = None
        except Bad as e:
            why = e
        assert (why is None) == c["valid"], "%s, %s: %s" % (c["what"], c["name"], why or "accepted")
        for name, value in c.get("means", {}).items():
            assert says[name] == value, "%s, %s: %s is %r" % (c["what"], c["name"], name, says[name])
    return len(file["cases"])


def check_keyring():
    file = load("keyring.json")
    for w in file["walks"]:
        assert walk(w) == (w["version"], [parse_key(k) for k in w["count"]]), w["name"]
    for c in file["texts"]:
        try:
            parse_about_keys(c["text"].encode(), c["what"])
            why = None
        except Bad as e:
            why = e
        assert (why is None) == c["valid"], "%s, %s: %s" % (c["what"], c["name"], why or "accepted")
    return len(file["walks"]) + len(file["texts"])


if __name__ == "__main__":
    print("keys", check_keys(), "releases", check_releases(), "manifests", check_manifests(), "cases", check_cases(), "keyring", check_keyring())
