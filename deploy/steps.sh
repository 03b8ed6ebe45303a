# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0
#
# What the scripts beside this one share: each is a story on the programs that
# `make build` made, in steps that say what must come of them. A script sets
# story, its name, and reads this. It then has $bin, the programs, and $work, a
# folder of its own, which is removed when it ends, as is what it started.

bin=$(cd "$(dirname "$0")/../bin" && pwd)
policies=$(cd "$(dirname "$0")/vault" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/provost-$story.XXXXXX")
daemon= vault=
unset PROVOST_URL PROVOST_TOKEN VAULT_ADDR VAULT_TOKEN VAULT_NAMESPACE

# Stops what was started, by process id, and removes what was written.
clean() {
	status=$?
	trap - EXIT INT TERM
	stop
	[ -z "$vault" ] || { kill "$vault" 2>/dev/null || true; wait "$vault" 2>/dev/null || true; }
	if [ "$status" -ne 0 ]; then
		echo
		echo "THE STORY \"$story\" FAILED. What the service logged last:"
		tail -n 5 "$work/provostd.log" 2>/dev/null || true
	fi
	rm -rf "$work"
	exit "$status"
}
trap clean EXIT
trap 'exit 130' INT TERM

step() { printf '\n== %s\n' "$*"; }

# show CODE COMMAND...: prints the command, runs it, and insists on its exit code.
show() {
	want=$1
	shift
	printf '$ %s\n' "$(printf '%s ' "$@" | sed "s|$bin/testbed/||g; s|$bin/||g; s|$work/||g")"
	got=0
	"$@" >"$work/said" 2>&1 || got=$?
	sed 's/^/  /' "$work/said"
	if [ "$got" -ne "$want" ]; then
		echo "  exit code $got, but it must be $want"
		exit 1
	fi
	printf '  (exit code %s, as it must be)\n' "$got"
}

# said TEXT, unsaid TEXT: the last command must have printed it, or must not.
said() {
	grep -qF -- "$1" "$work/said" || { echo "  it must say: $1"; exit 1; }
}
unsaid() {
	! grep -qF -- "$1" "$work/said" || { echo "  it must not say: $1"; exit 1; }
}

# wait_for FILE TEXT: until the text stands in the file, for a minute, while what
# was started last runs.
wait_for() {
	tries=0
	until grep -q "$2" "$1" 2>/dev/null; do
		tries=$((tries + 1))
		[ "$tries" -le 600 ] || { echo "no \"$2\" in a minute"; exit 1; }
		kill -0 "$!" 2>/dev/null || { echo "it ended before it said \"$2\""; exit 1; }
		sleep 0.1
	done
}

# start_vault KEYS: a real Vault for what follows, if the keys are to be in one.
start_vault() {
	[ "$1" = vault ] || return 0
	step "A real Vault, under the shipped least-privilege policies"
	mkdir "$work/vault"
	"$bin/testbed/vaultup" "$bin/testbed/vault" "$policies" "$work/vault" >"$work/vault.log" 2>&1 &
	vault=$!
	wait_for "$work/vault/vault.env" VAULT_TOKEN
	. "$work/vault/vault.env"
	echo "Vault at $VAULT_ADDR; a token with the policies $(cd "$policies" && ls -- *.hcl | sed 's/\.hcl//' | tr '\n' ' ')"
}

# start KEYS runs the service on a free port until stop.
start() {
	: >"$work/ready"
	"$bin/provostd" dev --data "$work/data" --listen 127.0.0.1:0 --keys "$1" >"$work/ready" 2>>"$work/provostd.log" &
	daemon=$!
	wait_for "$work/ready" '^ready '
	. "$work/data/cli.env"
}
stop() {
	[ -z "$daemon" ] || { kill "$daemon" 2>/dev/null || true; wait "$daemon" 2>/dev/null || true; }
	daemon=
}
