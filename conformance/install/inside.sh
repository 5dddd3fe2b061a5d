#!/bin/sh
# What run.sh runs on the machine that has Python alone; $1 is the README's first command.
set -eux
cd /root
uname -m
if command -v go || command -v gcc; then
	exit 1
fi
python3 -m venv env
env/bin/pip --version
env/bin/pip install --no-index ./*.whl
# nothing came with it
[ "$(env/bin/pip list --format=freeze | grep -vc -e '^pip=' -e '^setuptools=')" = 1 ]
PATH=/root/env/bin:$PATH
export PATH
tensorpress --version
$1
[ "$(python -m tensorpress --version)" = "$(tensorpress --version)" ]
python - <<'PYTHON'
import subprocess, sys, time
import tensorpress

assert not {"torch", "numpy", "safetensors"} & set(sys.modules)
print(len(tensorpress.inspect("out.safetensors")["layers"]), "layers")


def least(code):
    times = []
    for _ in range(10):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


print(f"python takes {least('pass'):.0f} ms, with import tensorpress {least('import tensorpress'):.0f} ms")
PYTHON
# without an environment, for the user alone, and into a folder
python3 -m pip install --no-index --target plain ./*.whl
PYTHONPATH=plain PATH=/usr/bin:/bin python3 -c 'import tensorpress; assert tensorpress.find() == "/root/plain/bin/tensorpress", tensorpress.find()'
/usr/bin/python3 -m pip install --no-index --user --break-system-packages ./*.whl
PATH=/usr/bin:/bin /usr/bin/python3 -c 'import tensorpress; assert tensorpress.find() == "/root/.local/bin/tensorpress", tensorpress.find()'
