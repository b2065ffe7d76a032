#!/usr/bin/env bash
#
# A real Postgres with pgvector for the tests, without Docker (Debian and Ubuntu).
#
#   scripts/postgres.sh start     install what is missing, start the server, print its URL
#   scripts/postgres.sh stop      stop it (fast); its data stays
#   scripts/postgres.sh url       print the URL
#   scripts/postgres.sh status    what is running and where; exit code 3 when it is stopped
#   scripts/postgres.sh install   only install (as root)
#
#   QUARRY_POSTGRES_DIR        the data folder (default: .postgres in the project's root)
#   QUARRY_POSTGRES_PORT       the port, on the loopback interface only (default: 54329)
#   QUARRY_POSTGRES_DURABLE=1  keep fsync and synchronous_commit on, for benchmarks
#
# On standard output there is only the URL (or the status); everything else goes to standard
# error. Any local user may connect as a superuser, and by default a crash of the machine loses
# the data: a server for tests, never for anything else.
#
# Other systems: `docker compose up -d --wait postgres` (compose.yaml).

set -euo pipefail

readonly DB_USER=quarry
readonly DB_NAME=quarry_test
readonly DEFAULT_PORT=54329
readonly OLDEST_POSTGRES=15
readonly OLDEST_PGVECTOR=0.8.0
# The Debian release whose pgvector source package is built where a release has none of its own.
readonly SOURCE_SUITE=trixie

SELF=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)/$(basename -- "${BASH_SOURCE[0]}")
ROOT=$(dirname -- "$(dirname -- "$SELF")")
readonly SELF ROOT

# Nothing of the caller's own Postgres may reach ours (PGHOST, PGOPTIONS, PGSERVICE ...).
unset "${!PG@}"

say() { printf 'postgres: %s\n' "$*" >&2; }
die() {
  say "$@"
  exit 1
}
is_root() { [[ $(id -u) -eq 0 ]]; }
# Is version $1 at least version $2?
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# ---------------------------------------------------------------------------------------------
# Finding a Postgres

# The version of pgvector that Postgres $1 (a major version) has; nothing if it has none.
pgvector_of() {
  local major=$1 bin=/usr/lib/postgresql/$1/bin share lib program version
  for program in postgres initdb pg_ctl psql; do
    [[ -x $bin/$program ]] || return 0
  done
  share=/usr/share/postgresql/$major
  lib=/usr/lib/postgresql/$major/lib
  if [[ -x $bin/pg_config ]]; then
    share=$("$bin/pg_config" --sharedir)
    lib=$("$bin/pg_config" --pkglibdir)
  fi
  [[ -f $share/extension/vector.control && -f $lib/vector.so ]] || return 0
  version=$(sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" "$share/extension/vector.control")
  [[ -f $share/extension/vector--$version.sql ]] || return 0
  printf '%s\n' "$version"
}

is_usable() {
  local version
  version=$(pgvector_of "$1")
  [[ -n $version ]] && at_least "$version" "$OLDEST_PGVECTOR"
}

installed_majors() {
  local folder
  for folder in /usr/lib/postgresql/*/bin; do
    [[ -d $folder ]] && basename -- "$(dirname -- "$folder")"
  done | grep -E '^[0-9]+$' | sort -rn || true
}

# The newest installed Postgres that can be used; fails when there is none.
usable_major() {
  local major
  for major in $(installed_majors); do
    if ((major >= OLDEST_POSTGRES)) && is_usable "$major"; then
      printf '%s\n' "$major"
      return
    fi
  done
  return 1
}

# ---------------------------------------------------------------------------------------------
# Installing

readonly NO_CLUSTER=/etc/postgresql-common/createcluster.d/quarry-no-cluster.conf
SCRATCH=
remove_scratch() { [[ -z $SCRATCH ]] || rm -rf -- "$SCRATCH"; }

# Runs a command with its output in a log that is shown only if the command fails.
quietly() {
  if ! "$@" >"$SCRATCH/log" 2>&1 </dev/null; then
    tail -n 40 "$SCRATCH/log" >&2
    return 1
  fi
}

apt() { DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"; }

apt_install() {
  say "installing $*"
  quietly apt install --yes --no-install-recommends "$@" ||
    die "apt-get could not install: $* (its last words are above)"
}

update_lists() {
  local try
  for try in 1 2 3; do
    if quietly apt "$@" update; then return; fi
    ((try == 3)) || sleep $((try * 5))
  done
  return 1
}

candidate_of() { apt-cache policy "$1" | sed -n 's/^ *Candidate: //p' | grep -v '^(none)$' || true; }

# The newest Postgres for which the configured repositories have a pgvector that is new enough.
packaged_major() {
  local major version
  for major in $(apt-cache search --names-only '^postgresql-[0-9]+-pgvector$' |
    sed -n 's/^postgresql-\([0-9]*\)-pgvector .*/\1/p' | sort -rn); do
    version=$(candidate_of "postgresql-$major-pgvector")
    version=${version#*:}
    if ((major >= OLDEST_POSTGRES)) && [[ -n $version ]] && at_least "${version%%-*}" "$OLDEST_PGVECTOR"; then
      printf '%s\n' "$major"
      return
    fi
  done
  return 1
}

# The newest Postgres that the configured repositories have, with its headers.
buildable_major() {
  local major
  for major in $(apt-cache search --names-only '^postgresql-server-dev-[0-9]+$' |
    sed -n 's/^postgresql-server-dev-\([0-9]*\) .*/\1/p' | sort -rn); do
    if ((major >= OLDEST_POSTGRES)) && [[ -n $(candidate_of "postgresql-$major") ]]; then
      printf '%s\n' "$major"
      return
    fi
  done
  return 1
}

# The mirror that this machine takes Debian from, as apt itself understood its configuration.
debian_mirror() {
  # shellcheck disable=SC2016 # the placeholders are apt's
  apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian \(.*\)$/\1/p' | sort -u | head -n 1
}

# Builds pgvector for Postgres $1 from Debian's own source package. The package's index and files
# are fetched with an apt configuration of their own, so that no other release ever becomes a
# source of this machine's packages; apt verifies the signature and every checksum as always.
build_pgvector() {
  local major=$1 mirror key='' options
  mirror=$(debian_mirror)
  [[ -n $mirror ]] ||
    die "no pgvector package for this system, and it is no Debian whose mirror could be asked for the source." \
      "Install pgvector $OLDEST_PGVECTOR or later for Postgres $major by hand, then start again."
  if [[ -f /usr/share/keyrings/debian-archive-keyring.gpg ]]; then
    key='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] '
  fi
  mkdir -p "$SCRATCH/lists/partial" "$SCRATCH/cache/archives/partial" "$SCRATCH/source"
  printf 'deb-src %s%s %s main\n' "$key" "$mirror" "$SOURCE_SUITE" >"$SCRATCH/sources.list"
  # apt downloads as a user of its own
  if getent passwd _apt >/dev/null; then
    chown -R _apt "$SCRATCH/lists" "$SCRATCH/cache" "$SCRATCH/source"
  fi
  options=(
    -o "Dir::Etc::sourcelist=$SCRATCH/sources.list"
    -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$SCRATCH/lists"
    -o "Dir::Cache=$SCRATCH/cache"
  )
  say "fetching the source of pgvector ($SOURCE_SUITE) from the mirror that this machine uses"
  update_lists "${options[@]}" -o APT::Update::Error-Mode=any ||
    die "could not read the $SOURCE_SUITE sources from $mirror, or its signature was not verified (see above)"
  (cd "$SCRATCH/source" && quietly apt "${options[@]}" --download-only --only-source source pgvector) ||
    die "could not download the source of pgvector from $mirror (see above)"
  quietly dpkg-source --extract "$SCRATCH"/source/pgvector_*.dsc "$SCRATCH/build" ||
    die "could not unpack the source of pgvector (see above)"

  say "building pgvector for Postgres $major"
  # OPTFLAGS: by default it is built for this very processor, which a machine image outlives;
  # with_llvm: bitcode is of no use here and takes most of the time.
  quietly make -C "$SCRATCH/build" -j "$(nproc)" OPTFLAGS='' with_llvm=no \
    PG_CONFIG="/usr/lib/postgresql/$major/bin/pg_config" ||
    die "pgvector did not build (see above)"
  quietly make -C "$SCRATCH/build" install OPTFLAGS='' with_llvm=no \
    PG_CONFIG="/usr/lib/postgresql/$major/bin/pg_config" ||
    die "pgvector could not be installed (see above)"
}

install_all() {
  local major
  is_root || die "install needs root: sudo bash $SELF install"
  command -v apt-get >/dev/null ||
    die "this system has no apt-get: install Postgres $OLDEST_POSTGRES or later with pgvector $OLDEST_PGVECTOR or later" \
      "under /usr/lib/postgresql, or use compose.yaml and set QUARRY_TEST_DATABASE_URL"
  # One at a time, whichever checkout it comes from.
  exec 8>/run/quarry-postgres-install.lock
  flock -w 900 8 || die "another installation has been going on for 15 minutes; look at it and start again"
  if usable_major >/dev/null; then return; fi

  SCRATCH=$(mktemp -d)
  chmod 755 "$SCRATCH"
  trap 'rm -f -- "$NO_CLUSTER"; remove_scratch' EXIT
  say "no Postgres $OLDEST_POSTGRES or later with pgvector $OLDEST_PGVECTOR or later here: installing"
  update_lists || say "apt-get update failed (see above): going on with the package lists as they are"

  # Debian's package would make a cluster on port 5432 and start it: none is needed.
  mkdir -p "$(dirname "$NO_CLUSTER")"
  printf 'create_main_cluster = false\n' >"$NO_CLUSTER"
  if major=$(packaged_major); then
    apt_install "postgresql-$major" "postgresql-$major-pgvector"
  elif major=$(buildable_major); then
    apt_install "postgresql-$major" "postgresql-server-dev-$major" gcc libc6-dev make dpkg-dev xz-utils \
      ca-certificates debian-archive-keyring
    build_pgvector "$major"
  else
    die "no package of Postgres $OLDEST_POSTGRES or later is known to apt here." \
      "Run apt-get update and look at its errors, or use compose.yaml and set QUARRY_TEST_DATABASE_URL"
  fi
  rm -f -- "$NO_CLUSTER"
  remove_scratch
  trap - EXIT
  is_usable "$major" || die "Postgres $major was installed, but pgvector $OLDEST_PGVECTOR or later is not there"
  say "installed Postgres $major with pgvector $(pgvector_of "$major")"
}

ensure_installed() {
  local sudo=(sudo)
  if usable_major >/dev/null; then return; fi
  if is_root; then
    bash "$SELF" install >&2
  elif command -v sudo >/dev/null; then
    [[ -t 0 ]] || sudo+=(-n)
    "${sudo[@]}" bash "$SELF" install >&2 || die "the installation failed; as root: bash $SELF install"
  else
    die "there is no Postgres $OLDEST_POSTGRES or later with pgvector $OLDEST_PGVECTOR or later under" \
      "/usr/lib/postgresql, and no sudo to install it with. As root: bash $SELF install"
  fi
}

# ---------------------------------------------------------------------------------------------
# Where the cluster lies and who runs it

DIR=
SERVER_USER= # set only when we are root: Postgres refuses to run as root

# Runs a command as the user who owns the server.
as_server() {
  if [[ -n $SERVER_USER ]]; then
    (cd / && runuser -u "$SERVER_USER" -- "$@")
  else
    "$@"
  fi
}

# Can the server's user reach this path (or, as long as it is not there, the folder it will be in)?
is_reachable() {
  local path=$1
  while [[ ! -e $path ]]; do path=$(dirname -- "$path"); done
  as_server test -d "$path" -a -x "$path"
}

# $1: "create" makes the system user if there is none.
locate() {
  if is_root; then
    if getent passwd postgres >/dev/null; then
      SERVER_USER=postgres
    elif [[ ${1:-} == create ]]; then
      useradd --system --user-group --no-create-home --home-dir /var/lib/postgresql --shell /usr/sbin/nologin \
        postgres || die "could not create the system user postgres, as whom the server runs"
      SERVER_USER=postgres
    fi
  fi
  DIR=$ROOT/.postgres
  if [[ -n ${QUARRY_POSTGRES_DIR:-} ]]; then
    DIR=$(realpath -m -- "$QUARRY_POSTGRES_DIR")
    if [[ -n $SERVER_USER ]] && ! is_reachable "$DIR"; then
      die "the user $SERVER_USER, as whom the server runs, cannot reach QUARRY_POSTGRES_DIR=$DIR:" \
        "choose a folder whose parents all users may enter (chmod a+x)"
    fi
  elif [[ -n $SERVER_USER ]] && ! is_reachable "$DIR"; then
    # A checkout in a private folder, say /root. The folder's name follows from the checkout's path,
    # so that stop and status find it again.
    DIR=/var/lib/quarry-postgres/$(basename -- "$ROOT")-$(printf '%s' "$ROOT" | sha256sum | cut -c 1-12)
    if [[ ${1:-} == create ]]; then
      say "the user $SERVER_USER, as whom the server runs, cannot enter $ROOT: the data goes to $DIR"
    fi
  fi
  DATA=$DIR/data
  LOG=$DIR/server.log
}

prepare_dir() {
  local entry
  if [[ -d $DIR ]]; then
    # The folder changes hands below: never do that to one with anything else in it.
    for entry in "$DIR"/* "$DIR"/.[!.]*; do
      [[ -e $entry ]] || continue
      case ${entry##*/} in
        data | data.new | server.log | lock) ;;
        *) die "$DIR holds other things (${entry##*/}): choose an empty folder with QUARRY_POSTGRES_DIR" ;;
      esac
    done
  fi
  mkdir -p -- "$DIR" || die "cannot create $DIR: choose another folder with QUARRY_POSTGRES_DIR"
  if [[ -n $SERVER_USER ]]; then
    chown "$SERVER_USER:" "$DIR" || die "cannot give $DIR to the user $SERVER_USER: choose another with QUARRY_POSTGRES_DIR"
  fi
  as_server test -w "$DIR" || die "$DIR is not writable for the server: remove it, or choose another with QUARRY_POSTGRES_DIR"
}

lock_dir() {
  exec 9>"$DIR/lock"
  if command -v flock >/dev/null; then
    flock -w 300 9 || die "another start or stop in $DIR has been going on for 5 minutes; look at it and try again"
  fi
}

# ---------------------------------------------------------------------------------------------
# The server

BIN=
PORT=

# The programs that fit the cluster, or for a new one the newest.
find_bin() {
  local major
  if [[ -f $DATA/PG_VERSION ]]; then
    major=$(<"$DATA/PG_VERSION")
    [[ -x /usr/lib/postgresql/$major/bin/pg_ctl ]] ||
      die "the cluster in $DIR is one of Postgres $major, which is not installed (any more): rm -rf $DIR and start again"
  else
    major=$(usable_major) || return 1
  fi
  BIN=/usr/lib/postgresql/$major/bin
}

# A process id alone proves nothing: after a crash it may be another process's. A server's working
# folder is its data folder.
is_running() {
  local pid
  [[ -f $DATA/postmaster.pid ]] || return 1
  pid=$(head -n 1 "$DATA/postmaster.pid")
  [[ $(readlink "/proc/$pid/cwd") == "$(realpath -- "$DATA")" ]]
}

# The port that the server was started on, or the one it would be started on.
find_port() {
  PORT=${QUARRY_POSTGRES_PORT:-$DEFAULT_PORT}
  if ! [[ $PORT =~ ^[1-9][0-9]{0,4}$ ]] || ((PORT > 65535)); then die "QUARRY_POSTGRES_PORT=$PORT is not a port"; fi
  if is_running; then PORT=$(sed -n 4p "$DATA/postmaster.pid"); fi
}

url() { printf 'postgresql://%s@127.0.0.1:%s/%s\n' "$DB_USER" "$PORT" "$DB_NAME"; }

sql() { "$BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$PORT" -U "$DB_USER" -d "$1" -c "$2" </dev/null; }

init_cluster() {
  say "creating a cluster of Postgres $(basename -- "$(dirname -- "$BIN")") in $DIR"
  # Made beside its place and then moved: one that was interrupted never looks complete.
  as_server rm -rf -- "$DATA.new"
  as_server "$BIN/initdb" -D "$DATA.new" -U "$DB_USER" --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync \
    >/dev/null </dev/null 9>&- || die "initdb failed in $DIR (see above)"
  as_server mv -- "$DATA.new" "$DATA"
  printf "include 'quarry.conf'\n" | as_server tee -a "$DATA/postgresql.conf" >/dev/null
}

write_settings() {
  local safe=off
  if [[ ${QUARRY_POSTGRES_DURABLE:-} == 1 ]]; then safe=on; fi
  as_server tee "$DATA/quarry.conf" >/dev/null <<CONF
# Written by scripts/postgres.sh at every start.
listen_addresses = '127.0.0.1'
port = $PORT
unix_socket_directories = ''
fsync = $safe
synchronous_commit = $safe
full_page_writes = $safe
shared_buffers = 256MB
maintenance_work_mem = 256MB
max_parallel_maintenance_workers = 2
max_connections = 200
max_wal_size = 2GB
autovacuum = on
CONF
}

start() {
  ensure_installed
  locate create
  prepare_dir
  lock_dir
  find_bin || die "no usable Postgres was found after the installation"
  find_port
  if is_running; then
    if [[ -n ${QUARRY_POSTGRES_PORT:-} && $PORT != "$QUARRY_POSTGRES_PORT" ]]; then
      die "it already runs on port $PORT, not on $QUARRY_POSTGRES_PORT: bash $SELF stop, then start again"
    fi
    if [[ ${QUARRY_POSTGRES_DURABLE:-} == 1 && $(sql postgres 'show fsync') != on ]]; then
      die "it already runs, but without QUARRY_POSTGRES_DURABLE: bash $SELF stop, then start again"
    fi
  else
    if (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; then
      die "port $PORT is taken, perhaps by the server of another checkout: stop that one, or choose another QUARRY_POSTGRES_PORT"
    fi
    [[ -f $DATA/PG_VERSION ]] || init_cluster
    write_settings
    as_server rm -f -- "$LOG" "$DATA/postmaster.pid"
    # The server must hold neither our output open nor our lock.
    if ! as_server "$BIN/pg_ctl" start -D "$DATA" -l "$LOG" -w -t 60 >/dev/null 2>&1 </dev/null 9>&-; then
      tail -n 20 "$LOG" >&2 || true
      die "the server did not start (its log is above). If its data are broken (a crash loses them): rm -rf $DIR and start again"
    fi
  fi
  if [[ -z $(sql postgres "select 1 from pg_database where datname = '$DB_NAME'") ]]; then
    sql postgres "create database $DB_NAME"
  fi
  [[ -n $(sql "$DB_NAME" "select 1 from pg_available_extensions where name = 'vector'") ]] ||
    die "the Postgres of this cluster ($BIN) has no pgvector: bash $SELF stop, rm -rf $DIR, then start again"
  url
}

stop() {
  locate
  if [[ ! -f $DATA/postmaster.pid ]]; then
    say "not running ($DIR)"
    return
  fi
  lock_dir
  if ! is_running; then
    say "not running ($DIR)"
    return
  fi
  find_bin
  as_server "$BIN/pg_ctl" stop -D "$DATA" -m fast -w -t 30 >/dev/null 2>&1 </dev/null 9>&- ||
    as_server "$BIN/pg_ctl" stop -D "$DATA" -m immediate -w -t 30 >/dev/null </dev/null 9>&- ||
    die "the server did not stop; its process is $(head -n 1 "$DATA/postmaster.pid")"
  say "stopped ($DIR)"
}

status() {
  locate
  find_port
  if ! is_running; then
    printf 'stopped\nfolder     %s\n' "$DIR"
    exit 3
  fi
  find_bin
  printf 'running    process %s\n' "$(head -n 1 "$DATA/postmaster.pid")"
  printf 'url        %s\n' "$(url)"
  printf 'folder     %s\n' "$DIR"
  printf 'versions   Postgres %s, pgvector %s\n' "$(sql postgres 'show server_version')" \
    "$(sql postgres "select default_version from pg_available_extensions where name = 'vector'")"
  printf 'durable    %s\n' "$(sql postgres 'show fsync')"
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  url)
    locate
    find_port
    url
    ;;
  status) status ;;
  install) install_all ;;
  *)
    say 'usage: scripts/postgres.sh start | stop | url | status | install'
    exit 2
    ;;
esac
