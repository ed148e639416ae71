"""Print the command that stands in README.md between `<!-- ci:NAME -->` and `<!-- /ci -->`."""

import re
import sys

name, path = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    found = re.findall(
        rf"<!-- ci:{re.escape(name)} -->\s*```bash\n(.*?)\n```\s*<!-- /ci -->",
        file.read(),
        re.DOTALL,
    )
if len(found) != 1:
    sys.exit(f"{path}: {len(found)} commands are marked ci:{name}; there must be exactly one")
print(found[0])
