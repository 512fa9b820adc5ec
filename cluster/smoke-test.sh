#!/usr/bin/env bash
# Try the manifests on a Kubernetes of this machine: what the API server says of every field, and a catalogue drawn, trained on
# and scored on a cluster of Ray. Needs docker, kind, kubectl, helm, the network, 4 cores, 12 GiB of memory and half an hour.
#   cluster/smoke-test.sh          # KEEP=1 leaves the Kubernetes cluster, to look around
# It makes a cluster `atlas-ray-smoke`, works on that one alone, and deletes it at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
NAME=atlas-ray-smoke
for program in docker kind kubectl helm; do
  command -v "$program" > /dev/null || { echo "$program is missing" >&2; exit 2; }
done
k() { kubectl --context "kind-$NAME" --namespace atlas-ray "$@"; }
end() { [ -n "${KEEP:-}" ] || kind delete cluster --name "$NAME"; }
trap end EXIT

docker build --file cluster/Dockerfile --build-arg TORCH_INDEX="${TORCH_INDEX:-}" --tag atlas-ray:smoke .
kind create cluster --name "$NAME" --wait 120s
kind load docker-image --name "$NAME" atlas-ray:smoke
helm repo add kuberay https://ray-project.github.io/kuberay-helm/
helm install kuberay-operator kuberay/kuberay-operator --kube-context "kind-$NAME" \
  --namespace kuberay-operator --create-namespace --wait
kubectl --context "kind-$NAME" label nodes --all atlas-ray/head=true atlas-ray/cpu=true

echo "== the API server on every part, with the schemas of KubeRay"
k create namespace atlas-ray
for part in base jobs update score train endpoint; do
  folder=$(mktemp -d "cluster/.smoke-XXXXXX")
  printf 'resources: [../%s]\ncomponents: [../pods, ../logs, ../shop/values, ../assemble]\n' "$part" \
    > "$folder/kustomization.yaml"
  kubectl kustomize "$folder" | k apply --dry-run=server --validate=strict -f - || { rm -r "$folder"; exit 1; }
  rm -r "$folder"
done

echo "== a cluster of jobs"
k apply -k cluster/smoke
k wait --for=condition=HeadPodReady raycluster/atlas-ray --timeout=600s
head=$(k get pods --selector ray.io/node-type=head --output name)
run() { k exec "$head" --container ray-head -- ray job submit --address http://127.0.0.1:8265 -- "$@"; }
run bash -c "python -c \"from atlas_ray.demo.drawing import draw_catalog; draw_catalog('/data/shop')\" \
  && atlas-ray import /data/shop/products.jsonl --output /data/catalog \
    --map product_id=id --map image_uris=image --map category_path=category"
run python jobs/train.py classifier --catalog /data/catalog --output /data/model --backbone resnet18 \
  --image-size-px 32 --epochs 1 --workers 1 --device cpu
run python jobs/score.py --catalog /data/catalog --model /data/model --output /data/runs/1 --workers 1 --device cpu
run python jobs/evaluate.py --run /data/runs/1
k get pods --output wide
echo "passed"
