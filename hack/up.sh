#!/usr/bin/env bash
# Starts the cluster "proa", runs examples/hello in it, and says what to try next.
set -euo pipefail
cd "$(dirname "$0")/.."
proa=$PWD/bin/proa
now() { date +%s%3N; }
step() { printf '%-24s %5d ms\n' "$1" "$(($(now) - began))"; began=$(now); }

if ! "$proa" status >/dev/null 2>&1; then
  "$proa" up
fi
began=$(now)
"$proa" image load build/images/hello.tar >/dev/null
step "image loaded"
"$proa" kubectl apply -f examples/hello >/dev/null
step "manifests applied"
"$proa" kubectl rollout status deployment/hello --timeout=60s >/dev/null
step "deployment available"
ip=$("$proa" kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
url=http://$ip:30080/
curl -sS --fail --retry 20 --retry-connrefused --retry-delay 1 --max-time 30 "$url"
step "service answers"
cat <<EOF

$url answers. The kubeconfig is $("$proa" status --json | sed 's/.*"kubeconfig":"\([^"]*\)".*/\1/').

Try next:
  curl $url
  bin/proa kubectl get pods -o wide
  bin/proa kubectl scale deployment hello --replicas 20
  bin/proa kubectl logs -l app=hello
  make down
EOF
