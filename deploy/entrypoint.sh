#!/bin/sh
# Runs the bot in a container. Docker restarts a container whatever its exit code is, and Discord blocks an address that
# keeps logging in with a refused token. So after an exit code that needs a fix, the container stays up, unhealthy and with
# the reason in its log, until someone stops it.
set -u

python -m bot "$@" &
bot=$!
trap 'kill -TERM "$bot"' TERM INT

wait "$bot"
code=$?
while kill -0 "$bot" 2>/dev/null; do # a signal ended the wait, not the bot
    wait "$bot"
    code=$?
done

if [ "${1:-run}" = run ]; then
    case $code in
    2 | 65 | 69 | 77 | 78)
        echo "gpt2-for-discord: ended with code $code, which needs a fix first: see above, then restart the container." >&2
        trap 'exit "$code"' TERM INT
        while :; do
            sleep 3600 &
            wait $!
        done
        ;;
    esac
fi
exit "$code"
