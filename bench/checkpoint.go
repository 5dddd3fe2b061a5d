package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/tensorpress/tensorpress/safetensors"
)

// transformer names the tensors of a diffusion transformer of about that many
// bytes in BF16.
func transformer(size int64) []safetensors.Tensor {
	const width = 3072
	var all []safetensors.Tensor
	add := func(name string, shape ...int) {
		all = append(all, safetensors.Tensor{Name: name, Dtype: safetensors.BF16, Shape: shape})
	}
	var total int64
	for i := 0; total < size; i++ {
		block := fmt.Sprintf("transformer_blocks.%d.", i)
		for _, layer := range []struct {
			name     string
			out, in_ int
		}{
			{"attn.to_q", width, width}, {"attn.to_k", width, width}, {"attn.to_v", width, width},
			{"attn.to_out.0", width, width}, {"ff.net.0.proj", 4 * width, width}, {"ff.net.2", width, 4 * width},
		} {
			if total >= size {
				break
			}
			add(block+layer.name+".weight", layer.out, layer.in_)
			add(block+layer.name+".bias", layer.out)
			total += 2 * int64(layer.out) * int64(layer.in_+1)
		}
		add(block+"norm1.weight", width)
	}
	return all
}

// layers are n weights of one shape.
func layers(n, rows, columns int) []safetensors.Tensor {
	all := make([]safetensors.Tensor, n)
	for i := range all {
		name := fmt.Sprintf("transformer_blocks.%d.experts.%d.weight", i/100, i%100)
		all[i] = safetensors.Tensor{Name: name, Dtype: safetensors.BF16, Shape: []int{rows, columns}}
	}
	return all
}

// writeFile writes a checkpoint of random weights, or one whose bodies are a
// hole in the file.
func writeFile(path string, tensors []safetensors.Tensor, hole bool) error {
	header, err := safetensors.NewHeader(tensors, nil)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := safetensors.NewWriter(f, header)
	if err != nil {
		return err
	}
	if hole {
		last := header.Tensors[len(header.Tensors)-1]
		return f.Truncate(header.DataStart + last.Offset + last.Size)
	}
	n := newNormal()
	for _, t := range header.Tensors {
		if err := n.fill(w, t); err != nil {
			return err
		}
	}
	return w.Finish()
}

// normal makes weights from a normal distribution, two bytes each.
type normal struct {
	rng    *rand.PCG
	values [4][1 << 16]uint16 // quantiles, in order, of four deviations
	buffer []byte
}

func newNormal() *normal {
	n := &normal{rng: rand.NewPCG(1, 2), buffer: make([]byte, 1<<20)}
	for i, deviation := range []float64{0.01, 0.02, 0.03, 0.05} {
		for j := range n.values[i] {
			p := (float64(j) + 0.5) / (1 << 16)
			v := float32(deviation * math.Sqrt2 * math.Erfinv(2*p-1))
			n.values[i][j] = uint16((math.Float32bits(v) + 0x8000) >> 16)
		}
	}
	return n
}

func (n *normal) fill(w *safetensors.Writer, t safetensors.Tensor) error {
	values := &n.values[n.rng.Uint64()%4]
	for off := int64(0); off < t.Size; off += int64(len(n.buffer)) {
		for i := 0; i < len(n.buffer); i += 8 {
			r := n.rng.Uint64()
			four := uint64(values[r&0xFFFF]) | uint64(values[r>>16&0xFFFF])<<16 |
				uint64(values[r>>32&0xFFFF])<<32 | uint64(values[r>>48])<<48
			binary.LittleEndian.PutUint64(n.buffer[i:], four)
			if off+int64(i) > t.Size {
				break
			}
		}
		if err := w.WriteSection(t, n.buffer[:min(int64(len(n.buffer)), t.Size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// writeShards writes a folder of that many shards of 20 tensors, and the index.
func writeShards(dir string, shards int) error {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	index := map[string]string{}
	for i := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, shards)
		tensors := make([]safetensors.Tensor, 20)
		for j := range tensors {
			tensors[j] = safetensors.Tensor{
				Name:  fmt.Sprintf("model.layers.%d.mlp.experts.%d.down_proj.weight", i, j),
				Dtype: safetensors.BF16, Shape: []int{64, 64},
			}
			index[tensors[j].Name] = name
		}
		if err := writeFile(filepath.Join(dir, name), tensors, true); err != nil {
			return err
		}
	}
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"total_size": shards * 20 * 64 * 64 * 2}, "weight_map": index})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), text, 0o666)
}
