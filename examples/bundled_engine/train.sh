#!/usr/bin/env bash
# The bundled engine, from nothing: draw surfaces, train an autoencoder, its decoder once more, a
# base (Eq. 2), the fine-tune with all defect types in one model (Eq. 5), once more with loose masks,
# and build the engine.
#
#   examples/bundled_engine/train.sh OUT [cpu|gpu]
#
# cpu: a window of 96 px, seven hours on one core. gpu: a window of 256 px.
# Stopped at any moment, the same command goes on from the last checkpoint, to the same weights.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:?usage: train.sh OUT [cpu|gpu]}" recipe="$here/${2:-cpu}"
source "$recipe/recipe.env" # COUNT, SIZE, WINDOW, MODEL, HALF

mkdir -p "$out"
if [ ! -e "$out/images.done" ]; then
    python -m defectrt.training.surfaces "$out/images" \
        --count "$COUNT" --size "$SIZE" --window "$WINDOW" --seed 0
    touch "$out/images.done"
fi
if [ ! -e "$out/blank/model_index.json" ]; then
    rm -rf "$out/blank"
    defectrt new-model --size "$MODEL" --prediction-type v_prediction --out "$out/blank"
fi

data=(--good "$out/images/good")
for defect_type in scratch crack dent hole stain particle; do
    data+=(--defect "$defect_type=$out/images/$defect_type")
done
stage() { # NAME BASE: one run; a finished one is left alone
    if [ ! -e "$out/$1.done" ]; then
        defectrt train --config "$recipe/$1.yaml" --model "$2" "${data[@]}" \
            --out "$out/$1" --resume
        touch "$out/$1.done"
    fi
}
stage autoencoder "$out/blank"
stage decoder "$out/autoencoder/model"
stage base "$out/decoder/model"
stage fine-tune "$out/base/model"
stage widen "$out/fine-tune/model"

if [ ! -e "$out/engine/engine.json" ]; then
    defectrt build-engine "$out/widen" --out "$out/engine" $HALF
fi
