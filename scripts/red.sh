#!/usr/bin/env bash
# Breaks one promise at a time, as scripts/mutants.txt says, and shows which test turns red. A test that stays green proves nothing.
#
#   scripts/red.sh            all of them: some minutes each, in a copy of the tree under target/red
#   scripts/red.sh WORD...    those in whose first lines a WORD stands
#   scripts/red.sh --check    only that each can be applied, and that its test is there
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 - "$@" <<'PYTHON'
import pathlib, re, shutil, subprocess, sys, time

ROOT = pathlib.Path.cwd()

SOURCES = {p.relative_to(ROOT): p.read_text() for top in ("src", "tests", "ffi") for p in (ROOT / top).rglob("*.rs")}

def target(name):
    """The arguments of cargo that build the test of this name."""
    found = [path for path, text in SOURCES.items() if f"fn {name}(" in text]
    if len(found) != 1:
        sys.exit(f"there are {len(found)} tests {name}, not one")
    top, *folders, last = found[0].parts
    if top == "src":
        return ["--bins"] if folders[:1] == ["bin"] else ["--lib"]
    # tests/NAME.rs, tests/NAME/part.rs; of processes and of the C ABI each file is one.
    one_each = top == "ffi" or folders[:1] == ["process"] or not folders
    return ["--test", last.removesuffix(".rs") if one_each else folders[0]]

def mutants():
    text = (ROOT / "scripts/mutants.txt").read_text()
    for block in re.split(r"\n\n+", "\n".join(l for l in text.split("\n") if not l.startswith("#"))):
        lines = block.strip("\n").split("\n")
        if lines == [""]:
            continue
        what, name, file, old, new = lines
        assert old.startswith("- ") and new.startswith("+"), f"wrong lines: {what}"
        yield what, target(name), name, file, old[2:], new[2:]

def broken(file, old, new):
    lines = (ROOT / file).read_text().split("\n")
    found = [i for i, line in enumerate(lines) if line.strip() == old]
    if len(found) != 1:
        sys.exit(f"{file} has this line {len(found)} times, not once: {old}")
    lines[found[0]] = new
    return "\n".join(lines)

words = sys.argv[1:]
chosen = list(mutants())
for what, arguments, name, file, old, new in chosen:
    broken(file, old, new)
if words == ["--check"]:
    sys.exit(print(f"{len(chosen)} mutants apply, and their tests are there"))
if words:
    chosen = [m for m in chosen if any(word in m[0] for word in words)]

tree, built = ROOT / "target/red/tree", ROOT / "target/red/target"
def copy(path):
    to = tree / path
    to.parent.mkdir(parents=True, exist_ok=True)
    # What is the same keeps its time, so that it is not built again.
    if not to.exists() or to.read_bytes() != (ROOT / path).read_bytes():
        shutil.copy2(ROOT / path, to)
listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True)
for path in listed.stdout.split("\n"):
    if path and (ROOT / path).is_file():
        copy(path)

def run(arguments, name):
    command = ["cargo", "test", "--workspace", "--features", "cli", *arguments, "--target-dir", str(built), "--", name]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=1800)

green = 0
for what, arguments, name, file, old, new in chosen:
    began = time.monotonic()
    (tree / file).write_text(broken(file, old, new))
    try:
        result = run(arguments, name)
    finally:
        (tree / file).write_text((ROOT / file).read_text())
    ran = re.search(r"test \S*" + name + r" \.\.\. (\w+)", result.stdout)
    if result.returncode and ran and ran[1] == "FAILED":
        verdict = "red"
    else:
        # It does not build, or the test was not run; or it was, and nothing was noticed.
        verdict = "GREEN" if ran and ran[1] == "ok" else "BROKEN"
    green += verdict != "red"
    print(f"{verdict:6} {time.monotonic() - began:5.0f} s  {what}: {name}", flush=True)
    if verdict == "BROKEN":
        print(result.stderr[-3000:] + result.stdout[-2000:], flush=True)
sys.exit(f"{green} of {len(chosen)} were not noticed" if green else 0)
PYTHON
