"""Makes the text that ids are compared on: `corpus.py DIR --size small|full [--seed N] [--packages DIR]`.

Prose out of Django's translations (some ninety languages, twenty scripts) and documentation, code out of Pygments'
examples (some four hundred languages), and what `texts.py` makes. The same seed makes the same text; `DIR/corpus.json`
says what is there, and a corpus that is there is left as it is. Documents are files: `DIR/KIND/NUMBER`.
"""

import argparse
import hashlib
import json
import pathlib
import random
import re
import sys
import unicodedata

import texts
from packages import Packages

HERE = pathlib.Path(__file__).resolve().parent
SEED = 4
# Bytes of each kind in the full corpus; the small one has a twelfth.
SHARES = {
    "prose": 3_600_000, "english": 1_200_000, "code": 3_000_000, "json": 900_000, "salad": 800_000,
    "decomposed": 500_000, "emoji": 300_000, "marks": 400_000, "runs": 500_000, "hostile": 600_000, "unicode": 700_000,
    "bytes": 300_000, "damaged": 700_000,
}  # fmt: skip
CODE = (
    "c cpp java go rust python js javascript typescript html css swift kotlin haskell perl php rb sql bash scheme "
    "ocaml fortran lua r matlab csharp objective-c scala erlang elixir clojure tex make cmake dart julia nim json xml "
    "yaml toml"
).split()
MESSAGE = re.compile(r'^msgstr(?:\[\d\])? ((?:".*"\n?)+)', re.M)


class Sources:
    """Prose by language, English documents, code by language."""

    def __init__(self, packages: Packages):
        prose: dict[str, list[str]] = {}
        self.english: list[str] = []
        self.code: dict[str, list[str]] = {}
        for path, content in packages.source_files("django"):
            if path.endswith(".po") and "/locale/" in path:
                language = path.split("/locale/")[1].split("/")[0]
                prose.setdefault(language, []).extend(messages(content.decode()))
            elif path.startswith("docs/") and path.endswith(".txt"):
                self.english.append(content.decode())
            elif path.endswith((".py", ".js", ".css", ".html")) and len(content) > 2000:
                self.code.setdefault("django" + pathlib.Path(path).suffix, []).append(
                    content.decode("utf-8", "replace")
                )
        for path, content in packages.source_files("pygments"):
            parts = path.split("/")
            if parts[:2] == ["tests", "examplefiles"] and not path.endswith(".output") and len(content) > 200:
                self.code.setdefault(parts[2], []).append(content.decode("utf-8", "replace"))
        self.prose = {language: "\n".join(lines) for language, lines in prose.items() if language != "en"}
        # Not by name: neighbours are often of one script.
        self.languages = random.Random(SEED).sample(sorted(self.prose), len(self.prose))


def messages(catalogue: str) -> list[str]:
    """The translations of a catalogue, its header left out."""
    found = ("".join(json.loads(line) for line in match[1].splitlines()) for match in MESSAGE.finditer(catalogue))
    return [text for text in found if text and not text.startswith("Project-Id-Version")]


def cut(random: random.Random, whole: str, letters: int) -> str:
    at = random.randrange(max(1, len(whole) - letters))
    return whole[at : at + letters]


def request(random: random.Random, sources: Sources, languages: list[str]) -> str:
    """A chat request as clients send it: indented or not, escaped or not."""
    turns = [
        {"role": random.choice(("system", "user", "assistant")),
         "content": cut(random, sources.prose[random.choice(languages)], random.randint(10, 900))}
        for _ in range(random.randint(1, 6))
    ]  # fmt: skip
    schema = {"type": "object", "properties": {word: {"type": "string"} for word in ("city", "Ort", "都市")}}
    body = {
        "model": "llama-3.1-8b", "messages": turns, "temperature": random.random(),
        "max_tokens": random.randrange(1 << 14),
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}],
        "logit_bias": {str(random.randrange(100_000)): random.randint(-100, 100) for _ in range(5)},
    }  # fmt: skip
    return json.dumps(body, indent=random.choice((None, None, 2, 4)), ensure_ascii=random.random() < 0.4)


def document(kind: str, random: random.Random, sources: Sources, index: int, scale: int) -> bytes:
    """One of a kind; its length is the full corpus's through `scale`, so that a small one has as many languages."""
    languages = sources.languages
    if kind == "prose":
        language = languages[index % len(languages)]
        return cut(random, sources.prose[language], 20_000 // scale).encode()
    if kind == "english":
        return random.choice(sources.english)[: 40_000 // scale].encode()
    if kind == "code":
        known = [name for name in CODE if name in sources.code] + [name for name in sources.code if "django." in name]
        others = sorted(sources.code)
        language = known[index % len(known)] if index % 3 else random.choice(others)
        return random.choice(sources.code[language])[: 30_000 // scale].encode()
    if kind == "json":
        return "\n".join(
            request(random, sources, languages) for _ in range(random.randint(1, max(1, 8 // scale)))
        ).encode()
    if kind == "salad":
        # Words and parts of words of all languages in a row: every class of letter next to every other.
        parts = [
            cut(random, sources.prose[random.choice(languages)], random.randint(1, 14)) for _ in range(800 // scale)
        ]
        return "".join(part + random.choice(("", "", " ", "\n", "1")) for part in parts).encode()
    if kind == "decomposed":
        form = random.choice(("NFD", "NFD", "NFKD"))
        return unicodedata.normalize(
            form, cut(random, sources.prose[languages[index % len(languages)]], 6000 // scale)
        ).encode()
    if kind == "emoji":
        return texts.emoji(random, random.choice((3, 30, 1500 // scale))).encode()
    if kind == "marks":
        return texts.marked(random, random.choice((5, 50, 3000 // scale))).encode()
    if kind == "runs":
        return texts.run(random, random.choice((7, 100, 1000, 5000, 20_000 // scale))).encode()
    if kind == "hostile":
        return texts.hostile(random, random.choice((3, 10, 100, 2000 // scale))).encode()
    if kind == "unicode":
        return texts.any_unicode(random, random.choice((4, 40, 4000 // scale))).encode()
    if kind == "bytes":
        return random.randbytes(random.choice((1, 3, 30, 8000 // scale)))
    base = random.choice(("prose", "code", "hostile", "emoji", "unicode"))
    return texts.damaged(random, document(base, random, sources, random.randrange(1000), scale)[: 9000 // scale])


def make(folder: pathlib.Path, size: str, seed: int, packages: Packages) -> dict[str, object]:
    sources = Sources(packages)
    digest = hashlib.sha256()
    made = {}
    for kind, share in SHARES.items():
        # Of its own seed: a kind that is changed leaves the others as they were.
        generator = random.Random(f"{seed} {kind}")
        share, scale = (share, 1) if size == "full" else (share // 12, 8)
        target = folder / kind
        target.mkdir(parents=True, exist_ok=True)
        for old in target.iterdir():
            old.unlink()
        bytes_made, index = 0, 0
        while bytes_made < share:
            content = document(kind, generator, sources, index, scale)
            (target / f"{index:05}").write_bytes(content)
            digest.update(content)
            bytes_made, index = bytes_made + len(content), index + 1
        made[kind] = {"documents": index, "bytes": bytes_made}
    total = sum(entry["bytes"] for entry in made.values())
    return {"size": size, "seed": seed, "bytes": total, "sha256": digest.hexdigest(), "kinds": made}


def documents(folder: pathlib.Path) -> list[tuple[str, bytes]]:
    """(kind/number, text) of every document of a corpus that was made, in order."""
    kinds = json.loads((folder / "corpus.json").read_text())["kinds"]
    paths = (path for kind in kinds for path in sorted((folder / kind).iterdir()))
    return [(f"{path.parent.name}/{path.name}", path.read_bytes()) for path in paths]


def prepare(folder: pathlib.Path, size: str, seed: int, wheels: pathlib.Path) -> dict[str, object]:
    listed = HERE / "corpus-packages.txt"
    inputs = [listed, HERE / "corpus.py", HERE / "texts.py"]
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in inputs) + f"{size} {seed}".encode()).hexdigest()
    index = folder / "corpus.json"
    if index.exists():
        known = json.loads(index.read_text())
        if known["stamp"] == stamp:
            return known
        index.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    made = {"stamp": stamp, **make(folder, size, seed, Packages(wheels, listed, sources=True))}
    # Last: a run that broke off is made anew.
    index.write_text(json.dumps(made, indent=1) + "\n")
    return made


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--size", choices=("small", "full"), default="small")
    arguments.add_argument("--seed", type=int, default=SEED)
    arguments.add_argument("--packages", type=pathlib.Path, help="where archives are kept; DIR/packages if not said")
    options = arguments.parse_args()
    wheels = options.packages or options.folder / "packages"
    print(json.dumps(prepare(options.folder, options.size, options.seed, wheels), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
