#!/bin/sh
# /usr/local/sbin/neuronetz-gateway: the commands, with the settings and as the user of the service.
# Run as root. `--write-env` alone is done by root: the settings are not the service's to change.
set -eu
cd /etc/neuronetz-gateway
case " $* " in
*" --write-env "*) exec /opt/neuronetz-gateway/bin/neuronetz-gateway "$@" ;;
*) exec runuser -u neuronetz-gateway -- /opt/neuronetz-gateway/bin/neuronetz-gateway "$@" ;;
esac
