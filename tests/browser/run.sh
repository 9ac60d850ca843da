#!/bin/sh
# Opens a report in headless Chromium, works it as a reader would, and takes pictures: run.sh [results/report.html] [picture.png]
# `make browser-test` makes results and report first. Chromium is installed where that is allowed (Debian, as root).
set -eu
here=$(dirname "$0")
page=${1:-results/report.html}
picture=${2:-results/report.png}
[ -f "$page" ] || { echo "there is no $page: outlier run scripts/report.rhai makes it" >&2; exit 1; }
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium
        browser=$(command -v chromium)
    else
        echo "please install chromium" >&2
        exit 1
    fi
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chrome() { "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile" "$@" 2>/dev/null; }
# A copy of the page with a reader in it, who leaves what happened in attributes of the document.
sed "/<\/body>/d;/<\/html>/d" "$page" > "$work/page.html"
{ echo "<script>"; cat "$here/reader.js"; echo "</script></body></html>"; } >> "$work/page.html"
chrome --virtual-time-budget=5000 --dump-dom "file://$work/page.html" > "$work/dom.html"
failed=0
for word in 'data-ready="true"' 'data-sorted="true"' 'data-sorted-back="true"' 'data-drawn="true"' 'data-read="true"' 'data-axes="true"'; do
    if grep -q "$word" "$work/dom.html"; then echo "ok      $word"; else echo "missing $word"; failed=1; fi
done
grep -o 'data-readout="[^"]*"' "$work/dom.html" || true
# Light and dark.
address="file://$(cd "$(dirname "$page")" && pwd)/$(basename "$page")"
dark=${picture%.png}_dark.png
chrome --window-size=1400,1700 --screenshot="$picture" "$address"
chrome --window-size=1400,1700 --blink-settings=preferredColorScheme=0 --screenshot="$dark" "$address"
for made in "$picture" "$dark"; do [ -s "$made" ] || { echo "no $made"; failed=1; }; done
exit $failed
