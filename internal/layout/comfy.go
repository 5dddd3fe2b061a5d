package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// HeaderKey is the header entry that describes layers for ComfyUI.
const HeaderKey = "_quantization_metadata"

// PreQuantScale ends the name of the factors by which a layer's activations are
// multiplied before anything else.
const PreQuantScale = ".pre_quant_scale"

// maxMetadata bounds a layer's JSON; real ones have about 200 bytes.
const maxMetadata = 1 << 16

// readComfy finds the layers that describe themselves. An entry of the
// header's _quantization_metadata replaces the layer's own tensor, as in
// ComfyUI.
func (m *Model) readComfy() error {
	header, err := m.headerLayers()
	if err != nil {
		return err
	}
	for _, name := range layerNames(m.Checkpoint, header) {
		l := &Layer{Name: name}
		_, l.FromHeader = header.Get(name)
		var k *kind
		if k, l.Err = m.layerKind(name, header); k != nil {
			l.Options = k.options
		}
		if system := (*fs.PathError)(nil); errors.As(l.Err, &system) { // the file could not be read: no fault of the layer
			return l.Err
		}
		m.openComfy(l, k)
		m.Layers = append(m.Layers, l)
	}
	if m.Layers != nil {
		m.Layout = Comfy
	}
	return nil
}

// layerNames returns the layers that have a metadata tensor, or a header entry and a
// weight.
func layerNames(c *checkpoint.Checkpoint, header pyjson.Object) []string {
	var names []string
	for _, t := range c.Tensors {
		if name, ok := strings.CutSuffix(t.Name, metadataSuffix); ok {
			names = append(names, name)
		}
	}
	for _, entry := range header {
		if _, ok := c.Lookup(entry.Key + weightSuffix); ok {
			names = append(names, entry.Key)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (m *Model) layerKind(name string, header pyjson.Object) (*kind, error) {
	if entry, ok := header.Get(name); ok {
		o, ok := entry.(pyjson.Object)
		if !ok {
			return nil, errors.New("its entry in _quantization_metadata is not an object")
		}
		return m.kinds.described(o), nil
	}
	t, ok := m.Checkpoint.Lookup(name + metadataSuffix)
	if !ok || t.Dtype != safetensors.U8 || t.Size > maxMetadata {
		return nil, fmt.Errorf("comfy_quant is %s with %d bytes, want U8 with at most %d", t.Dtype, t.Size, maxMetadata)
	}
	text := make([]byte, t.Size)
	if err := m.Checkpoint.ReadSection(t, text, 0); err != nil {
		return nil, err
	}
	k, err := m.kinds.of(string(text), func() (pyjson.Object, error) { return pyjson.ParseObject(text) })
	if err != nil {
		return nil, fmt.Errorf("comfy_quant: %w: tensorpress migrate describes layers anew that their tensors tell", err)
	}
	return k, nil
}

func (m *Model) openComfy(l *Layer, k *kind) {
	s := m.stored(l, Comfy, metadataSuffix, PreQuantScale)
	s.Hint = m.shapeHint(l.Name, nil, -2)
	if l.Err != nil {
		return
	}
	name, _ := l.Options.Get("format")
	l.Format, _ = name.(string)
	l.Dtype = l.Format
	f, err := codec.ByName(l.Format)
	if l.Format == "" {
		err = errors.New("comfy_quant names no format: tensorpress migrate describes layers anew that their tensors tell")
	}
	if err != nil {
		l.Err = err
		return
	}
	if d, ok := l.Options.Get("weights_dtype"); ok && f == codec.SDNQ() {
		l.Dtype, _ = d.(string)
	}
	orig, _ := l.Options.Get("orig_dtype")
	l.OrigDtype, _ = codec.OrigDtype(orig)
	if _, ok := s.Tensors[tile.Weight]; !ok {
		l.Err = errors.New("its weight is missing")
		return
	}
	m.open(l, k.open(s, func() (o opened) {
		o.codec, o.err = f.OpenAs(s)
		return o
	}))
}
