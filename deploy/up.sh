#!/bin/sh
# From a fresh clone to a gateway that answers over https, and again after every change.
#
#   sh deploy/up.sh --pull llama3.2:1b                             on this machine, https://localhost
#   sh deploy/up.sh --domain llm.example.com --pull llama3.2:1b    for the world, with a certificate of Let's Encrypt
#
# Builds the image, makes secrets/, config/ and .env where they are not there, starts everything, fetches a model, and makes a
# first tenant and key where there is none; the key is printed once. What else is given goes to `docker compose up`.
set -eu
cd "$(dirname "$0")/.."

domain=''
model=''
while [ $# -gt 0 ]; do
    case $1 in
    --domain) domain=${2:?--domain takes a name, such as llm.example.com}; shift 2;;
    --pull) model=${2:?--pull takes a model, such as llama3.2:1b}; shift 2;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0;;
    *) break;;
    esac
done

sh deploy/prepare.sh
if [ -n "$domain" ]; then
    [ ! -e .env ] || grep -qx "GATEWAY_DOMAIN=$domain" .env || {
        echo ".env is there and does not say GATEWAY_DOMAIN=$domain; put that into it, and PUBLISH_ADDRESS=0.0.0.0." >&2
        exit 2
    }
    [ -e .env ] || printf 'GATEWAY_DOMAIN=%s\nPUBLISH_ADDRESS=0.0.0.0\n' "$domain" >.env
fi
# As compose reads it: the environment over .env.
setting() { eval "printf %s \"\${$1:-}\"" | grep . || sed -n "s/^$1=//p" .env 2>/dev/null | tail -n 1 | grep . || echo "$2"; }

# By docker itself: compose builds only with a newer buildx than some machines have.
python=$(setting PYTHON_IMAGE '')
docker build --quiet --build-arg PIP_INDEX_URL ${python:+--build-arg "PYTHON_IMAGE=$python"} --file deploy/Dockerfile --tag "$(setting IMAGE neuronetz-gateway)" . >/dev/null
docker compose up --detach --wait "$@"
[ -z "$model" ] || docker compose run --rm pull "$model"

host=$(setting GATEWAY_DOMAIN localhost)
port=$(setting HTTPS_PORT 443)
address=https://$host
[ "$port" = 443 ] || address=$address:$port
trust=''
if [ "$host" = localhost ]; then
    # Caddy makes its authority when it starts.
    until docker compose exec -T caddy cat /var/tmp/caddy/pki/authorities/local/root.crt >config/localhost-ca.crt 2>/dev/null; do
        sleep 1
    done
    trust="--cacert config/localhost-ca.crt "
fi

gateway() { docker compose exec -T gateway neuronetz-gateway "$@"; }
# With two roles (compose.two-roles.yaml), the gateway's own can't make tenants and keys.
if docker compose config --services | grep -qx roles; then
    gateway() { docker compose run --rm --no-deps -T migrate "$@"; }
fi
echo
if [ "$(gateway list-tenants --json | tr -d ' \n')" = '[]' ]; then
    gateway create-tenant --name first >/dev/null
    key=$(gateway create-key --tenant first --name first --json | sed -n 's/.*"key": *"\(nz_[0-9A-Za-z]*\)".*/\1/p')
    echo "Serving on $address. The first key, shown this one time: $key"
else
    key='nz_…'
    echo "Serving on $address."
fi
if [ -z "$model" ]; then
    model='MODEL'
    echo "Fetch a model with: docker compose run --rm pull llama3.2:1b"
fi
cat <<END

  curl ${trust}-N $address/v1/chat/completions \\
    -H 'Authorization: Bearer $key' -H 'Content-Type: application/json' \\
    -d '{"model": "$model", "stream": true, "messages": [{"role": "user", "content": "Hello!"}]}'
END
