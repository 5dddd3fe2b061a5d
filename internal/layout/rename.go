package layout

import (
	"maps"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// Rename gives the tensors of a checkpoint other names, and changes the header's
// description of layers accordingly. It is an error if two would get the same name.
func Rename(c *checkpoint.Checkpoint, to func(name string) string) error {
	header, err := headerEntries(c)
	if err != nil {
		return err
	}
	if err := c.Rename(to); err != nil || header == nil {
		return err
	}
	whole, err := pyjson.ParseObject([]byte(c.Metadata[HeaderKey]))
	if err != nil {
		return err
	}
	var layers pyjson.Object
	for _, m := range header {
		layers = append(layers, pyjson.Member{Key: to(m.Key), Value: m.Value})
	}
	c.Metadata = maps.Clone(c.Metadata)
	c.Metadata[HeaderKey] = pyjson.Dump(whole.Set("layers", layers))
	return nil
}
