"""Ask a running `defectrt serve` for one image with a defect; Python's own library is enough.

python examples/service_client.py IMAGE [KEY=VALUE …]    as in defect=scratch seed=3
"""

import base64
import json
import os
import sys
from pathlib import Path
from urllib.request import Request, urlopen

image, values = Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:])
asked = {"image": base64.b64encode(image.read_bytes()).decode(), "name": image.name} | values
url = os.environ.get("DEFECTRT_URL", "http://127.0.0.1:8765")
headers = {"Content-Type": "application/json"}
if token := os.environ.get("DEFECTRT_TOKEN"):
    headers["Authorization"] = f"Bearer {token}"
request = Request(f"{url}/v1/synthesize", json.dumps(asked).encode(), headers)
with urlopen(request, timeout=120) as answer:
    made = json.load(answer)
for part in ("image", "label"):
    Path(f"{image.stem}_{part}.png").write_bytes(base64.b64decode(made[part]))
print(made["record"]["defect"], made["record"]["seed"])
