package renamed

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/names"
	"github.com/tensorpress/tensorpress/safetensors"
)

// wants adds the tensors that ComfyUI looks for and diffusers keeps elsewhere.
func (v *view) wants(list []names.Want) error {
	for _, w := range list {
		if w.Setting != "" {
			if on, _ := v.model.Checkpoint.Config.Get(w.Setting); on == true {
				v.add(w.Name, safetensors.F32, nil)
			}
			continue
		}
		data, err := v.find(w.Files)
		switch {
		case err != nil:
			return err
		case data == nil:
			v.notes = append(v.notes, fmt.Sprintf("ComfyUI looks for a tensor %s, which holds %s: there is no such file beside the weights, nor in the tokenizer's folder",
				w.Name, strings.Join(w.Files, " or ")))
		default:
			v.add(w.Name, safetensors.U8, data)
		}
	}
	return nil
}

// add adds a tensor of one dimension.
func (v *view) add(name string, dtype safetensors.Dtype, data []byte) {
	n := int64(len(data))
	t := checkpoint.Tensor{
		Tensor:   safetensors.Tensor{Name: name, Dtype: dtype, Shape: []int{len(data)}, Size: n},
		Gathered: &checkpoint.Gathered{Pieces: []checkpoint.Piece{{Size: n, Count: 1, Data: data}}},
	}
	v.to.Plain = append(v.to.Plain, t)
}

// find reads the first of files that is there: beside the weights, or, where these are
// a pipeline's text encoder, in the folder of its tokenizer.
func (v *view) find(files []string) ([]byte, error) {
	c := v.model.Checkpoint
	folders := []string{c.Dir}
	if above, name := c.Tree.Split(strings.TrimRight(c.Dir, `/\`)); strings.HasPrefix(name, "text_encoder") {
		folders = append(folders, c.Tree.Join(above, "tokenizer"+strings.TrimPrefix(name, "text_encoder")))
	}
	for _, folder := range folders {
		for _, name := range files {
			data, err := c.Witness.ReadFile(c.Tree.Join(folder, name))
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				return data, err
			}
		}
	}
	return nil, nil
}
