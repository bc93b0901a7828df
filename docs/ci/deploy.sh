#!/usr/bin/env bash
# deploy.sh [rollback]
#
# Builds the hosts of a flake, uploads them to Narwharf, promotes them, and waits until
# they run it. One script for every forge: docs/ci/README.md says which file calls it.
#
#   a pull request      goes to the channel "staging" on a cache of its own; without a
#                       credential (a fork's has none) it is built and nothing else
#   a branch test-HOST  goes to HOST alone, until its next reboot
#   rollback            goes back to NARWHARF_TO (a seq, or last-good) for NARWHARF_REASON
#   everything else     goes to the channel "production": main and tags, as the forge's file says
#
# The forge's word for the job (OpenID Connect) is exchanged for a token of the server, which ends
# with the job. Settings; what is marked with a * is a secret, and lasts longer than the job:
#
#   NARWHARF_SERVER        https://cache.example.org
#   NARWHARF_PR_SERVER     the cache of pull requests; none: they are built only
#   NARWHARF_PACKAGE       where narwharf comes from if it is not in PATH: .#narwharf, or
#                          its store path in the cache
#   NARWHARF_SIGN_CMD      signs releases, with a key service say; NARWHARF_KEY is the public key then
#   NARWHARF_KEY *         the promoter's key
#   NARWHARF_CONTENT_SIGN_CMD  signs what is uploaded; NARWHARF_CONTENT_KEY is the public key then
#   NARWHARF_CONTENT_KEY * signs what is uploaded
#   NARWHARF_TOKEN *       of the server, where the forge has no OpenID Connect
#   NARWHARF_HOSTS         which hosts (default: all nixosConfigurations)
#   NARWHARF_ACTION        auto, switch, boot, reboot (default: auto)
#   NARWHARF_WAIT          how long to wait for hosts (default: 30m)
set -euo pipefail

umask 077
work=$(mktemp -d) # secrets and links; gone with the job
logged_in=''
finish() {
  [ -z "$logged_in" ] || nw logout "$server" || true # the token ends with the job
  rm -rf "$work"
}
trap finish EXIT
touch "$work/client.toml" # login writes to it, and the token beside it
nw() { narwharf "$@" --client-config "$work/client.toml"; }
export NIX_CONFIG="extra-experimental-features = nix-command flakes
${NIX_CONFIG-}"

# Secrets leave the environment before anything is built: $work/NAME has them.
for name in NARWHARF_TOKEN NARWHARF_KEY NARWHARF_CONTENT_KEY; do
  [ -z "${!name-}" ] || printf '%s\n' "${!name}" > "$work/$name"
  unset "$name"
done

# What this job is of. order is counted by the forge: a job that runs again late has a lower one,
# and is refused.
pull='' branch='' order='' rev='' url=''
if [ "${GITHUB_ACTIONS-}" = true ]; then # also Forgejo and Gitea
  order=$GITHUB_RUN_NUMBER rev=$GITHUB_SHA
  url=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID
  [ "${GITHUB_REF_TYPE-}" != branch ] || branch=$GITHUB_REF_NAME
  [ "$GITHUB_EVENT_NAME" != pull_request ] || pull=yes
elif [ "${GITLAB_CI-}" = true ]; then
  order=$CI_PIPELINE_IID rev=$CI_COMMIT_SHA url=$CI_PIPELINE_URL branch=${CI_COMMIT_BRANCH-}
  [ "$CI_PIPELINE_SOURCE" != merge_request_event ] || pull=yes
elif [ "${BUILDKITE-}" = true ]; then
  order=$BUILDKITE_BUILD_NUMBER rev=$BUILDKITE_COMMIT url=$BUILDKITE_BUILD_URL
  [ -n "${BUILDKITE_TAG-}" ] || branch=$BUILDKITE_BRANCH
  [ "$BUILDKITE_PULL_REQUEST" = false ] || pull=yes
  repository=${BUILDKITE_PULL_REQUEST_REPO-} repository=${repository%.git}
  [[ ${BUILDKITE_REPO%.git} == *[:/]"${repository#*://*/}" ]] || NARWHARF_PR_SERVER='' # a fork's agent has a word, too
elif rev=$(git rev-parse HEAD 2> /dev/null); then # a shell in a clone
  branch=$(git branch --show-current) order=$(git rev-list --count HEAD)
fi

channel=production server=${NARWHARF_SERVER:?} host=''
if [ -n "$pull" ]; then
  channel=staging server=${NARWHARF_PR_SERVER-}
elif [[ $branch == test-* ]]; then
  host=${branch#test-}
fi

# build links release/HOST to each host's system. Who has no flake puts his nix-build here.
build() {
  local hosts=${host:-${NARWHARF_HOSTS-}} name systems=()
  [ -n "$hosts" ] || hosts=$(nix eval --raw .#nixosConfigurations --apply 'c: toString (builtins.attrNames c)')
  for name in $hosts; do systems+=(".#nixosConfigurations.\"$name\".config.system.build.toplevel"); done
  nix build --no-link "${systems[@]}"
  mkdir "$work/release"
  for name in $hosts; do
    nix build --out-link "$work/release/$name" ".#nixosConfigurations.\"$name\".config.system.build.toplevel"
    echo "$name: $(readlink "$work/release/$name")"
  done
}

# login gives nix and narwharf a credential for the server: the token, or one for the forge's word.
login() {
  local line
  export NARWHARF_SERVER=$server
  if [ -e "$work/NARWHARF_TOKEN" ]; then
    line=$(nw login "$server" --token-file "$work/NARWHARF_TOKEN")
  else
    line=$(unset GITHUB_ENV; nw login "$server")
    logged_in=yes
  fi
  eval "$line" # NIX_CONFIG, with the netrc
}

# credential reports whether the job has one.
credential() {
  [ -n "$server" ] && { [ -e "$work/NARWHARF_TOKEN" ] || [ "${BUILDKITE-}" = true ] ||
    [ -n "${ACTIONS_ID_TOKEN_REQUEST_URL-}${NARWHARF_OIDC_TOKEN-}" ]; }
}

upload() {
  local to="$server?compression=zstd"
  local key=$work/NARWHARF_CONTENT_KEY elsewhere=${NARWHARF_CONTENT_SIGN_CMD-}
  [ ! -e "$key" ] || [ -n "$elsewhere" ] || to+="&secret-key=$key"
  nix copy --refresh --to "$to" "$work"/release/*
  [ -z "$elsewhere" ] || nw key sign "$work"/release/* --key "$key" --sign-cmd "$elsewhere"
}

# narwharf_path puts narwharf into PATH.
narwharf_path() {
  command -v narwharf > /dev/null ||
    PATH=$(nix build --no-link --print-out-paths "${NARWHARF_PACKAGE:?narwharf is not in PATH}")/bin:$PATH
}

# boot_label reports whether the pull request of this commit has the label "boot": hosts then take
# it with their next reboot. The forge's API is asked with GITHUB_TOKEN, where the job has one.
boot_label() {
  [ -n "${GITHUB_TOKEN-}" ] || return 1
  local file=$work/pulls.json pulls=pulls status
  [ -z "${FORGEJO_ACTIONS-}${GITEA_ACTIONS-}" ] || pulls=pull
  if [ -n "$pull" ]; then
    file=$GITHUB_EVENT_PATH
  else
    status=$(curl -sS --max-time 30 -H @- -o "$file" -w '%{http_code}' <<< "Authorization: Bearer $GITHUB_TOKEN" \
      "$GITHUB_API_URL/repos/$GITHUB_REPOSITORY/commits/$GITHUB_SHA/$pulls") || status=000
    case $status in
      200) ;;
      404) return 1 ;; # a commit of no pull request
      *) echo "cannot ask for the labels of $GITHUB_SHA's pull request: $status; the job needs pull-requests: read" >&2; exit 1 ;;
    esac
  fi
  [ "$(nix eval --impure --expr "
    let json = builtins.fromJSON (builtins.readFile \"$file\");
    in builtins.any (p: builtins.any (l: l.name == \"boot\") (p.labels or [ ]))
      (if builtins.isList json then json else [ (json.pull_request or json) ])")" = true ]
}

# send runs a command of narwharf that makes a release and waits; the summary has the plan, what came
# of it, and what each host did.
send() {
  local flags=(--wait --wait-timeout "${NARWHARF_WAIT:-30m}" --summary "$work/summary") code=0
  [ -z "$rev" ] || flags+=(--meta "rev=$rev")
  [ -z "$url" ] || flags+=(--meta "url=$url")
  [ -z "$order" ] || [ -n "$host" ] || flags+=(--order "$order") # of all targets, so not of one
  [ ! -e "$work/NARWHARF_KEY" ] || flags+=(--key "$work/NARWHARF_KEY")
  [ -z "${NARWHARF_SIGN_CMD-}" ] || flags+=(--sign-cmd "$NARWHARF_SIGN_CMD")
  nw "$@" "${flags[@]}" | tee "$work/log" || code=$?
  {
    printf '### %s: %s\n\n```\n' "$channel" "$(grep . "$work/log" | tail -n 1 || echo "nothing was promoted, see the log")"
    nw hosts "$channel"
    printf '```\n'
  } >> "$work/summary" || true
  cat "$work/summary"
  [ -z "${GITHUB_STEP_SUMMARY-}" ] || cat "$work/summary" >> "$GITHUB_STEP_SUMMARY"
  [ "${BUILDKITE-}" != true ] || buildkite-agent annotate --context narwharf < "$work/summary"
  return $code
}

if [ "${1-}" = rollback ]; then
  narwharf_path
  login
  send rollback "$channel" --to "${NARWHARF_TO:-last-good}" --meta "reason=${NARWHARF_REASON:?why?}"
  exit
fi
build
if ! credential; then
  [ -n "$pull" ] || { echo "this job has no credential for $server" >&2; exit 1; }
  echo "This pull request has no cache or no credential: it was built, and nothing else."
  exit
fi
narwharf_path
login
upload
if [ -n "$host" ]; then
  send promote "$channel" --set "$host=$work/release/$host" --action test
elif boot_label; then
  send promote "$channel" "$work/release" --action boot
else
  send promote "$channel" "$work/release" --action "${NARWHARF_ACTION:-auto}"
fi
