# What follows is the same in every script; above is what differs.
# shellcheck shell=sh disable=SC2154

# Exit status: 0 the host is what the channel says, or its system's agent runs;
# 1 this machine lacks something; 3 the host is not what the channel says;
# 4 the server was not reached; 5 the agent could not be fetched; 6 the time was over.

set -eu
umask 077
PATH=/run/wrappers/bin:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:$PATH:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

dir=$state/bootstrap
boot=$(cat /proc/sys/kernel/random/boot_id 2> /dev/null || echo none)

say() { printf 'narwharf-bootstrap: %s\n' "$*" >&2; }
die() {
  code=$1
  shift
  say "$*"
  exit "$code"
}

# put FILE TEXT: whole or not at all, readable to root alone.
put() {
  printf '%s' "$2" > "$1.$$"
  mv -f "$1.$$" "$1"
}

# credentials TOKEN: what Nix and curl show to the server.
credentials() {
  put "$dir/netrc" "machine $server_name
login narwharf
password $1
"
}

# prove prints what this machine can show to read the cache before it has an agent; nothing, if it
# has nothing: then the cache has to be open to everybody.
prove() {
  case $identity in
    ssh) prove_ssh ;;
    gcp)
      curl -fsS --max-time 15 --noproxy '*' -G -H 'Metadata-Flavor: Google' --data-urlencode "audience=$audience" --data-urlencode format=full \
        http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/identity
      ;;
    azure)
      curl -fsS --max-time 15 --noproxy '*' -G -H 'Metadata: true' --data-urlencode api-version=2018-02-01 --data-urlencode "resource=$audience" \
        http://169.254.169.254/metadata/identity/oauth2/token | sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p'
      ;;
  esac
}

# prove_ssh joins by the host key. The agent does so again, as the same instance.
prove_ssh() {
  command -v ssh-keygen > /dev/null || return 0
  [ -s "$state/instance" ] || put "$state/instance" "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
  instance=$(cat "$state/instance")
  nonce=$(curl -fsS --max-time 15 -d "{\"host\":\"$name\",\"instance\":\"$instance\"}" "$server/api/v1/challenge" |
    sed -n 's/.*"nonce":"\([A-Za-z0-9_-]*\)".*/\1/p')
  [ -n "$nonce" ] || return 0
  signature=$(printf 'narwharf host 1\nnonce %s\nurl %s\nhost %s\ninstance %s\n' "$nonce" "$server" "$name" "$instance" |
    ssh-keygen -Y sign -f /etc/ssh/ssh_host_ed25519_key -n host@narwharf 2> /dev/null | sed 's/$/\\n/' | tr -d '\n')
  [ -n "$signature" ] || {
    say "ssh-keygen signs nothing with /etc/ssh/ssh_host_ed25519_key: is it there, and for root alone to read?"
    return 0
  }
  answer=$(curl -sS --max-time 15 "$server/api/v1/join" \
    -d "{\"host\":\"$name\",\"channel\":\"$channel\",\"instance\":\"$instance\",\"proof\":{\"type\":\"ssh\",\"nonce\":\"$nonce\",\"signature\":\"$signature\"}}")
  token=$(printf '%s' "$answer" | sed -n 's/.*"token":"\(nwt_[0-9a-z_]*\)".*/\1/p')
  [ -n "$token" ] || say "$answer"
  printf '%s' "$token"
}

# One run at a time. That is for the reader of the log: every step below can be
# done twice at once, and the agent has a lock of its own.
lock() {
  if command -v flock > /dev/null; then
    exec 9> "$dir/lock"
    flock -n 9 && return
    say "another run is at it: waiting for it"
    flock -w "$patience" 9 || die 6 "the other run has not ended within $patience s"
    return
  fi
  waited=0
  until ln -s "$$ $boot" "$dir/lock.by" 2> /dev/null; do
    owner=$(readlink "$dir/lock.by" || true)
    ended "$owner" && take_over "$owner" && continue
    [ "$waited" -gt 0 ] || say "another run is at it: waiting for it"
    [ "$waited" -lt "$patience" ] || die 6 "the other run has not ended within $patience s; if there is none, remove $dir/lock.*"
    waited=$((waited + 1))
    sleep 1
  done
  trap 'rm -f "$dir/lock.by"' EXIT
  trap 'exit 6' HUP INT TERM
}

# ended OWNER: whether the run that made a lock is no more.
ended() {
  [ -n "$1" ] && { [ "${1#* }" != "$boot" ] || ! kill -0 "${1%% *}" 2> /dev/null; }
}

# take_over OWNER removes the lock of a run that has ended. One at a time, or two
# could find the same one, and the second remove what the first has made since.
take_over() {
  mkdir "$dir/lock.over" 2> /dev/null || return 1
  if [ "$(readlink "$dir/lock.by" || true)" = "$1" ]; then
    say "a run that was ended left its lock: taking it"
    rm -f "$dir/lock.by"
  fi
  rmdir "$dir/lock.over"
}

# again WHAT TRIES COMMAND...: until it works, with longer and longer pauses.
again() {
  what=$1 tries=$2 n=1 pause=1
  shift 2
  until "$@"; do
    [ "$n" -lt "$tries" ] || return 1
    say "$what: try $n of $tries failed, again in $pause s"
    sleep "$pause"
    n=$((n + 1))
    pause=$((pause * 2))
    [ "$pause" -lt 16 ] || pause=15
  done
}

# room: KiB that are free where the store is, or nothing.
room() {
  df -Pk /nix/store 2> /dev/null | {
    read -r _ || exit 0
    read -r _ _ _ free _ || exit 0
    echo "$free"
  }
}

# guard BEFORE: ends the download when it takes more room than any agent does, or nearly all that there
# was. Nix reads what comes to its end, and before there is an agent nobody else cuts what has none.
guard() {
  trap - EXIT # the lock is another's
  [ -n "$1" ] || return 0
  most=$(($1 - $1 / 8)) left=$1
  [ "$most" -lt 2097152 ] || most=2097152
  while [ $(($1 - ${left:-$1})) -lt "$most" ]; do
    sleep 1
    left=$(room)
  done
  : > "$dir/too-much"
  kill "$(cat "$dir/download")"
}

fetch() {
  [ -z "${identity:-}" ] || credentials "$(prove)"
  rm -f "$dir/too-much"
  guard "$(room)" < /dev/null > /dev/null 2>&1 9>&- &
  watch=$! code=0
  # shellcheck disable=SC2016
  sh -c 'echo $$ > "$0" && exec nix-store "$@"' "$dir/download" \
    --realise "$agent" --add-root "$state/gcroots/bootstrap" --indirect \
    --option substituters "$server" --option trusted-public-keys "$content_keys" --option require-sigs true \
    --option substitute true --option fallback false --option builders '' --option max-jobs 0 \
    --option narinfo-cache-negative-ttl 0 --option connect-timeout 15 --option stalled-download-timeout 60 \
    --option netrc-file "$dir/netrc" > /dev/null || code=$?
  kill -KILL "$watch" 2> /dev/null || : # bash runs the trap of its parent when it ends by another
  wait "$watch" 2> /dev/null || :
  [ -e "$dir/too-much" ] || return "$code"
  # What it left has come since this run began.
  find /nix/store -mindepth 1 -maxdepth 1 -newer "$dir/agent.toml" ! -name '.*' -exec nix-store --delete {} \; > /dev/null 2>&1 || :
  die 5 "what comes from $server for $agent takes more room than an agent does: it was stopped and deleted. Is somebody else answering in its place?"
}

[ "$(id -u)" = 0 ] || die 1 "this has to run as root"
for tool in nix-store curl; do
  command -v "$tool" > /dev/null || die 1 "there is no $tool on this machine"
done
agent=$(agent_for "$(uname -m)") || die 1 "there is no agent for $(uname -m) in this script: make it with --agent $(uname -m)-linux=PATH"
name=$host
[ -n "$name" ] || name=$(uname -n)
case $name in
  nixos | localhost | localhost.*)
    [ -n "$host" ] || die 1 "this machine is called $name, as others are: make the script with --host NAME"
    ;;
esac

if command -v systemctl > /dev/null && systemctl is-active --quiet narwharf-agent.service 2> /dev/null; then
  say "the agent of this machine's system runs: there is nothing to do"
  exit 0
fi

mkdir -p "$dir" "$state/gcroots"
lock
say "making $name a host of $channel at $server"

put "$dir/agent.toml" "$config"
[ -z "$ca" ] || {
  put "$dir/ca.pem" "$ca"
  NIX_SSL_CERT_FILE=$dir/ca.pem
  CURL_CA_BUNDLE=$dir/ca.pem
  NIX_REMOTE=local # nix-daemon has an environment of its own, without this
  export NIX_SSL_CERT_FILE CURL_CA_BUNDLE NIX_REMOTE
}
again "$server does not answer" "$server_tries" curl -fsS -o /dev/null --max-time 15 "$server/nix-cache-info" ||
  die 4 "$server was not reached"

fetch_tries=5
[ -z "$identity" ] || fetch_tries=$server_tries # a person may have to approve the machine
# The own token, once there is one and the server takes it: the other is spent then.
if [ -z "$identity" ] && [ -s "$state/token" ]; then
  credentials "$(cat "$state/token")"
  status=$(curl -sS -o /dev/null --max-time 15 --netrc-file "$dir/netrc" -w '%{http_code}' \
    "$server/api/v1/hosts/$name/desired?channel=$channel") || status=none
  if [ "$status" = 401 ]; then
    say "the server does not take the token of this host any more: joining anew"
    mv -f "$state/token" "$state/token.void"
  fi
fi
if [ -n "$identity" ]; then
  name=${name%%.*}
elif [ -s "$state/token" ]; then
  rm -f "$dir/join-token"
else
  credentials "$join_token"
  put "$dir/join-token" "$join_token"
fi

if [ -x "$agent/bin/narwharf" ] && nix-store --check-validity "$agent" 2> /dev/null; then
  say "the agent is here: $agent"
else
  say "fetching the agent: $agent"
fi
again "the agent could not be fetched" "$fetch_tries" fetch || die 5 "the agent could not be fetched from $server: is $agent in it, signed by one of $content_keys?"

code=0
result=$("$agent/bin/narwharf" agent once --config "$dir/agent.toml" --timeout "${patience}s" 9>&-) || code=$?
case $code in
  0) ;;
  3) die 3 "this host is not what $channel says: $result" ;;
  4)
    say "an agent runs on this machine already: there is nothing to do"
    exit 0
    ;;
  5) die 6 "the time was over; run this again" ;;
  *) die 3 "the agent failed with status $code" ;;
esac
rm -f "$dir/netrc"
say "done: $result"
[ "$result" = armed ] || rm -f "$dir/rebooted"

if [ "$result" = armed ] && [ "$reboot" = yes ]; then
  # Once only: if that boot does not come up with the system, a second will not.
  if [ -e "$dir/rebooted" ]; then
    die 3 "it was rebooted into the new system before, and runs another: see narwharf agent status"
  fi
  put "$dir/rebooted" "$boot"
  sync
  say "rebooting into the new system"
  systemctl reboot
fi
