#!/bin/sh
# Runs the bot in a container. Docker starts a container again whatever its exit code says, and a bot that asks Discord
# again and again with a token that Discord refuses gets its address blocked. So after an exit code that asks for
# mending, the container stays as it is, unhealthy and with the reason in its log, until somebody stops it.
set -u

python -m bot "$@" &
bot=$!
trap 'kill -TERM "$bot"' TERM INT

wait "$bot"
code=$?
while kill -0 "$bot" 2>/dev/null; do # a signal ended the waiting, not the bot
    wait "$bot"
    code=$?
done

if [ "${1:-run}" = run ]; then
    case $code in
    2 | 65 | 69 | 77 | 78)
        echo "gpt2-for-discord: ended with code $code, which has to be mended first: see above, then start me again." >&2
        trap 'exit "$code"' TERM INT
        while :; do
            sleep 3600 &
            wait $!
        done
        ;;
    esac
fi
exit "$code"
