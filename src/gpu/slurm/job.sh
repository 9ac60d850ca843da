# Keeps the allocation, and starts what is asked for as `start` in the folder: what it starts lives as long as the job,
# while a job step ends with the connection it came by.
umask 077
code=1
child=
ended() {
    trap '' TERM INT
    cat "$folder/worker.log" 2>/dev/null
    rm -rf "$folder"
    printf '%s\n' "$code" > "$marker"
    exit "$code"
}
trap ended EXIT
trap 'code=143; [ -z "$child" ] || { kill "$child"; wait "$child"; } 2>/dev/null; exit "$code"' TERM INT
if ! mkdir "$folder"; then
    # Not ours, so nothing in it is touched.
    folder=/nonexistent
    exit
fi
waited=0
while [ "$waited" -lt "$idle_seconds" ]; do
    if [ -f "$folder/start" ]; then
        mv "$folder/start" "$folder/started"
        /bin/sh "$folder/started" &
        child=$!
        wait "$child"
        code=$?
        child=
        # It ended because it was time to; after a crash it may be asked for again.
        [ "$code" -ne 0 ] || exit
        waited=0
    fi
    sleep 1
    waited=$((waited + 1))
done
echo "nobody has asked for anything for $idle_seconds s"
