#!/bin/sh
# Makes what compose.yaml mounts, as far as it is not there: secrets/ and config/. Changes nothing that is.
#
#   sh deploy/prepare.sh
#
# The containers' users differ from yours, so the files are readable for all; the folder around them is for you alone.
set -eu
cd "$(dirname "$0")/.."

random() { head -c 32 /dev/urandom | od -An -v -t x1 | tr -d ' \n'; }
keep() { # NAME TEXT
    printf '%s\n' "$2" >"secrets/$1.new"
    chmod 0444 "secrets/$1.new"
    mv "secrets/$1.new" "secrets/$1"
}
hash() { printf '%s' "$1" | { sha256sum 2>/dev/null || shasum -a 256; } | cut -d ' ' -f 1; }

mkdir -p secrets config
chmod 0700 secrets
if [ ! -e secrets/postgres_password ]; then
    password=$(random)
    keep database_url "postgresql://gateway:$password@postgres:5432/gateway"
    keep postgres_password "$password"
fi
if [ ! -e secrets/serving_password ]; then
    # Of the role that compose.two-roles.yaml has gateways serve as.
    password=$(random)
    keep database_serving_url "postgresql://gateway_serving:$password@postgres:5432/gateway"
    keep serving_password "$password"
fi
if [ ! -e secrets/redis_acl ]; then
    password=$(random)
    keep redis_url "redis://gateway:$password@redis:6379"
    # Redis itself knows a hash only. Nobody may flush, reconfigure or stop it; health checks see that it answers.
    keep redis_acl "user default off
user gateway on #$(hash "$password") ~* &* +@all -@dangerous +info +config|get"
fi
[ -e secrets/gateway_secret ] || keep gateway_secret "$(random)"
if [ ! -e config/.env ]; then
    cat >config/.env <<'END'
# The gateway's backends; SIGHUP reads them again: docker compose kill -s HUP gateway
OLLAMA_BACKENDS=ollama=http://ollama:11434;slots=4
END
    chmod 0644 config/.env
fi
