#!/usr/bin/env bash
# nix-clients.sh [DIR [SUITE...]]
#
# Brings the stock Nix clients that the end-to-end tests talk to: nix-bin as Debian ships it in
# each suite, with every library it needs down to ld.so, unpacked below DIR. Nothing is installed
# on the host, no maintainer script runs, /nix is not touched.
#
#   DIR      default $NARWHARF_NIX_DIR, else .cache/nix beside this folder
#   SUITE    default bookworm trixie forky (Nix 2.8, 2.26 and 2.34 when this was written)
#
#   DIR/<suite>/bin/{nix,nix-store,...}        to put in front of PATH; the folder can be moved
#   DIR/bin/nix-<suite>, nix-store-<suite>     the same by suite name
#   DIR/<suite>/stamp                          "<layout> <arch> <nix version>", written last
#
# The version behind a suite moves, so clients are addressed by suite and say their version.
# A suite whose stamp fits is left alone without asking the network; a suite appears whole or not
# at all. Environment: DEBIAN_MIRROR (default: where this machine's apt gets Debian from),
# DEBIAN_KEYRING, REFRESH=1 to fetch again.
set -euo pipefail

LAYOUT=2
SUITES_DEFAULT="bookworm trixie forky"
PROGRAMS="nix nix-build nix-collect-garbage nix-copy-closure nix-daemon nix-env nix-hash nix-instantiate nix-prefetch-url nix-shell nix-store"

die() { printf 'nix-clients.sh: %s\n' "$*" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-${NARWHARF_NIX_DIR:-${here%/*}/.cache/nix}}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $SUITES_DEFAULT
for suite; do
  case $suite in
    *[!a-z0-9.-]* | "" | bin | .*) die "'$suite' is no name of a Debian suite" ;;
  esac
done

# ---- already there? Then neither apt nor a network is needed.
arch=$(uname -m)
case $arch in
  x86_64) deb_arch=amd64 ldso=ld-linux-x86-64.so.2 triple=x86_64-linux-gnu ;;
  aarch64) deb_arch=arm64 ldso=ld-linux-aarch64.so.1 triple=aarch64-linux-gnu ;;
  *) die "no clients for machine '$arch': x86_64 and aarch64 are known" ;;
esac
ready() { # SUITE
  local layout found version
  [ -z "${REFRESH:-}" ] && [ -r "$dir/$1/stamp" ] || return 1
  read -r layout found version < "$dir/$1/stamp" || return 1
  [ "$layout" = "$LAYOUT" ] && [ "$found" = "$deb_arch" ] && [ -n "$version" ]
}
report() { # SUITE
  local version
  read -r _ _ version < "$dir/$1/stamp"
  printf '%s\t%s\t%s\n' "$1" "$version" "$dir/$1/bin"
}
missing=()
for suite; do ready "$suite" || missing+=("$suite"); done
if [ ${#missing[@]} -eq 0 ]; then
  for suite; do report "$suite"; done
  exit 0
fi

# ---- what fetching needs
packages=()
want() { command -v "$1" > /dev/null || packages+=("$2"); } # COMMAND PACKAGE
if ! command -v apt-get > /dev/null || ! command -v dpkg-deb > /dev/null; then
  die "this machine has no apt-get and dpkg-deb: the clients are unpacked from Debian's archive, so this step wants a Debian machine or container. Copy $dir from one, or set NARWHARF_NIX_DIR to such a copy."
fi
os=$(. /etc/os-release 2> /dev/null && printf '%s' "${ID:-}") || os=
if [ "$os" != debian ] && [ -z "${DEBIAN_MIRROR:-}" ]; then
  die "this machine is '${os:-unknown}', not Debian: set DEBIAN_MIRROR to a Debian mirror (and DEBIAN_KEYRING to Debian's archive keyring) to unpack the clients here all the same."
fi
want flock util-linux
want tar tar
want xz xz-utils
keyring=${DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
[ -r "$keyring" ] || {
  [ -z "${DEBIAN_KEYRING:-}" ] || die "cannot read the keyring $keyring (DEBIAN_KEYRING)"
  packages+=(debian-archive-keyring)
}
[ ${#packages[@]} -eq 0 ] || die "missing on this machine; as root: apt-get install ${packages[*]}"
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian|Debian|//p' | head -n 1)}
[ -n "$mirror" ] || die "apt knows no Debian mirror: run apt-get update as root, or set DEBIAN_MIRROR"

mkdir -p "$dir/bin"
dir=$(cd "$dir" && pwd)
exec 9> "$dir/.lock"
flock 9 # two runs at once: the second finds the work done
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT

# apt_config SUITE: an apt of our own in $work/apt, which shares with the host's apt only how to
# reach a mirror (proxies, certificates, credentials). Its dpkg status is empty, so that the whole
# closure with libc is resolved.
apt_config() {
  mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial" "$work/apt/etc"
  : > "$work/apt/status"
  printf 'deb [signed-by=%s arch=%s] %s %s main\n' "$keyring" "$deb_arch" "$mirror" "$1" > "$work/apt/sources.list"
  {
    cat << CONF
Dir::Etc "$work/apt/etc";
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::Etc::netrc "/etc/apt/auth.conf";
Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
Dir::State "$work/apt";
Dir::State::Lists "$work/apt/lists";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt";
Dir::Cache::archives "$work/apt/archives";
APT::Architecture "$deb_arch";
APT::Architectures { "$deb_arch"; };
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "5";
// A suite in testing says it is valid for a week. A mirror that lags or is frozen is no reason to
// fail here; signatures are checked all the same.
Acquire::Check-Valid-Until "false";
CONF
    apt-config dump | grep -E '^Acquire::https?::[A-Za-z:.-]+ "[^"]+";$' || true
  } > "$work/apt/apt.conf"
}

unpack() { # DEB: what the programs need at run time, nothing else
  local name=${1##*/}
  case $name in
    perl_* | perl-* | libperl* | lib*-perl_* | debconf_* | dpkg_* | tar_* | adduser_* | passwd_* | sysvinit-utils_* | curl_* | libpam*) return ;;
  esac
  dpkg-deb --fsys-tarfile "$1" | tar -x -C "$work/root" --no-same-owner --keep-directory-symlink \
    --exclude='./usr/share/perl*' --exclude='./usr/lib/*/perl*' --exclude='./usr/lib/*/gconv' \
    --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' \
    --exclude='./usr/share/lintian' --exclude='./etc' --exclude='./nix' --exclude='./var'
}

wrapper() { # VERSION SUITE PROGRAM: it finds the suite's folder from its own place
  cat << WRAP
#!/bin/sh
# $3 of Nix $1, Debian $2
self=\$(readlink -f "\$0") || exit 127
here=\${self%/bin/*}
export NIX_BIN_DIR="\${NIX_BIN_DIR:-\$here/bin}" NIX_LIBEXEC_DIR="\${NIX_LIBEXEC_DIR:-\$here/libexec}"
export NIX_SSL_CERT_FILE="\${NIX_SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}"
root=\$here/root
exec "\$root/$loader" --library-path "$(printf '%s' "$libs" | sed 's#[^:]*#$root/&#g')" --argv0 $3 "\$root/usr/bin/nix" "\$@"
WRAP
}

wrappers() { # VERSION SUITE
  local p
  mkdir -p "$work/bin" "$work/libexec/nix"
  for p in $PROGRAMS build-remote; do
    wrapper "$1" "$2" "$p" > "$work/bin/$p"
    chmod 755 "$work/bin/$p"
  done
  ln -sf ../../bin/build-remote "$work/libexec/nix/build-remote" # Nix 2.8 asks for it before any build
}

fetch() { # SUITE
  local suite=$1 deb candidate version
  work=$dir/.$suite.new
  rm -rf "$work"
  mkdir -p "$work/root"
  apt_config "$suite"
  echo "fetching nix-bin of Debian $suite" >&2
  APT_CONFIG=$work/apt/apt.conf apt-get -qq update >&2 ||
    die "cannot read suite $suite from the mirror (see above); DEBIAN_MIRROR names another"
  APT_CONFIG=$work/apt/apt.conf apt-get -qq -y --download-only -o Debug::NoLocking=1 install nix-bin > /dev/null ||
    die "cannot download nix-bin of $suite (see above)"
  for deb in "$work"/apt/archives/*.deb; do unpack "$deb"; done
  (cd "$work/apt/archives" && ls ./*.deb | sed 's#^\./##') > "$work/packages.txt"
  rm -rf "$work/apt"

  loader=
  for candidate in usr/lib/$triple/$ldso lib/$triple/$ldso usr/lib/$ldso lib/$ldso; do
    [ ! -f "$work/root/$candidate" ] || { loader=$candidate; break; }
  done
  [ -n "$loader" ] || die "no $ldso in the packages of $suite"
  libs=usr/lib/nix:usr/lib/$triple/nix:lib/$triple:usr/lib/$triple:lib:usr/lib
  wrappers unknown "$suite"
  # `nix --version` opens no store; the two variables keep it from looking at /nix all the same.
  version=$(NIX_STORE_DIR=$work/none NIX_STATE_DIR=$work/none "$work/bin/nix" --version | sed 's/.* //') ||
    die "nix of $suite does not run on this machine"
  rm -rf "$work/none"
  wrappers "$version" "$suite"
  printf '%s %s %s\n' "$LAYOUT" "$deb_arch" "$version" > "$work/stamp"

  rm -rf "${dir:?}/$suite"
  mv "$work" "$dir/$suite"
  work=
  for p in nix nix-store; do ln -sfn "../$suite/bin/$p" "$dir/bin/$p-$suite"; done
}

for suite in "${missing[@]}"; do
  ready "$suite" || fetch "$suite"
done
for suite; do report "$suite"; done
