package checkpoint

import (
	"fmt"
	"slices"
)

// Rename gives the tensors other names, under which they are found from then on. It is
// an error, and nothing changes, if two tensors would get the same name.
func (c *Checkpoint) Rename(to func(name string) string) error {
	renamed := slices.Clone(c.Tensors)
	for i := range renamed {
		if renamed[i].Name = to(renamed[i].Name); renamed[i].Name == "" {
			return fmt.Errorf("%s: tensor %.200q would have no name", c.Path, c.Tensors[i].Name)
		}
	}
	renamed = sorted(renamed)
	for i := 1; i < len(renamed); i++ {
		if renamed[i].Name == renamed[i-1].Name {
			return fmt.Errorf("%s: two tensors would be called %.200q", c.Path, renamed[i].Name)
		}
	}
	c.Tensors = renamed
	return nil
}
