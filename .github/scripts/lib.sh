# Shared by the scripts beside it; sourced, never run. Each of them sets -euo pipefail itself.
# shellcheck shell=bash disable=SC2034 # the variables are for the scripts

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/agent-sandbox
image=${IMAGE:-agent-sandbox:dev}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# die MESSAGE [HINT...]: one line that says what is wrong, then what to do about it.
die() {
	say "$1"
	shift
	[ $# -eq 0 ] || printf '  hint: %s\n' "$@" >&2
	exit 1
}

# as_root CMD...: sudo only if it asks for nothing, since nobody may be there to answer.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_root() {
	[ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null
}

# apt_install PACKAGE...: for what is missing; callers look first, as this takes seconds.
apt_install() {
	command -v apt-get >/dev/null || die "$* missing, and there is no apt-get here" "install it and try again"
	can_root || die "$* missing, and installing takes root" "apt-get install $*"
	say "installing $*"
	# The lock's time-out is for machines that are just starting, where another apt often runs.
	local apt=(apt-get -qq -o DPkg::Lock::Timeout=120)
	local log
	log=$(mktemp)
	if ! as_root "${apt[@]}" update >"$log" 2>&1 ||
		! as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
			"${apt[@]}" install -y --no-install-recommends "$@" >>"$log" 2>&1; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		die "could not install $*"
	fi
	rm -f "$log"
}

# ca_flags prints --ca-file flags, one a line, for the certificates that this machine was given: builds have to trust whoever signs the
# registries' certificates on its network.
ca_flags() {
	local file
	for file in /usr/local/share/ca-certificates/*.crt; do
		[ ! -s "$file" ] || echo "--ca-file=$file"
	done
}

# engine_socket prints the path of the engine's unix socket, or nothing when it isn't one.
engine_socket() {
	case ${DOCKER_HOST:-} in
	'') echo /var/run/docker.sock ;;
	unix://*) echo "${DOCKER_HOST#unix://}" ;;
	esac
}

# api METHOD PATH [CURL ARGUMENTS...]: a call to the engine on the unix socket in $sock. No client is
# involved, so none can be too old or too new for the engine.
api() {
	local method=$1 path=$2
	shift 2
	curl -sS --fail --unix-socket "${sock:?}" -X "$method" "$@" "http://engine$path"
}

# engine_answers: the ping takes 10 ms; the client is asked only where there is no socket to ask, or where
# its context points elsewhere (Docker Desktop, Colima).
engine_answers() {
	local sock
	sock=$(engine_socket)
	if [ -S "$sock" ] && command -v curl >/dev/null; then
		api GET /_ping --max-time 5 -o /dev/null 2>/dev/null && return
	fi
	command -v docker >/dev/null && timeout 10 docker version >/dev/null 2>&1
}

# docker_cli CMD...: a client of the distribution can be too old for an engine, and a newer one installed by hand
# too new; take the first that this engine accepts. For build see replace.
docker_cli() {
	if [ -z "${docker_bin:-}" ]; then
		local candidate
		for candidate in docker /usr/local/bin/docker /usr/bin/docker; do
			if timeout 10 "$candidate" version >/dev/null 2>&1; then
				docker_bin=$candidate
				break
			fi
		done
		[ -n "${docker_bin:-}" ] || die "no docker client here gets along with the engine" "install docker-cli"
	fi
	if [ "${1:-}" = build ]; then replace "$@"; else "$docker_bin" "$@"; fi
}

# image_id NAME: nothing if the engine has no such image.
image_id() { docker_cli image inspect --format '{{.Id}}' "$1" 2>/dev/null || true; }

# remove_replaced ID: an image that has lost its name to a newer one, with the steps that led to it alone. One that has another name, or that
# something uses, stays.
remove_replaced() {
	[ -n "$1" ] && [ "$(docker_cli image inspect --format '{{len .RepoTags}} {{len .RepoDigests}}' "$1" 2>/dev/null)" = "0 0" ] || return 0
	docker_cli rmi "$1" >/dev/null 2>&1 || true
}

# replace build ARGUMENT...: the image that had the name of --tag before goes: nobody else would know what it was of.
replace() {
	local i old=
	for ((i = 1; i < $#; i++)); do
		[ "${!i}" != --tag ] || old=$(image_id "${@:i+1:1}")
	done
	"$docker_bin" "$@" || return
	remove_replaced "$old"
}

# program PID: what runs there, by the name that it was started with; nothing for a process that is gone, or dead and
# not yet reaped, which has no command line.
program() {
	local name=
	[[ ${1:-} =~ ^[0-9]+$ ]] && IFS= read -r -d '' name 2>/dev/null <"/proc/$1/cmdline"
	echo "${name##*/}"
} 2>/dev/null

# running PID: whether it is there, and not dead and merely not yet reaped (proc_pid_stat(5)). Not by its command line, which
# is empty for a moment while it execs.
running() {
	local stat
	[[ ${1:-} =~ ^[0-9]+$ ]] && read -r stat <"/proc/$1/stat" || return 1
	stat=${stat##*) }
	[[ $stat != [ZX]* ]]
} 2>/dev/null

# await_engine SECONDS PID LOG: until the engine at DOCKER_HOST answers, or its process is gone, or time is up.
await_engine() {
	local deadline=$((SECONDS + $1)) pid=$2 log=$3 sock
	sock=$(engine_socket)
	until [ -S "$sock" ] && api GET /_ping --max-time 5 -o /dev/null 2>/dev/null; do
		if ! running "$pid" || [ $SECONDS -ge $deadline ]; then
			say "the engine did not come up; the end of $log:"
			tail -n 20 "$log" >&2
			return 1
		fi
		sleep 0.05
	done
}
