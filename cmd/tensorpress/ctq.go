package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress/internal/convert"
	"github.com/tensorpress/tensorpress/internal/ctq"
	"github.com/tensorpress/tensorpress/internal/engine"
)

func newCTQ() *cobra.Command {
	c := &ctqCommand{}
	return command(&cobra.Command{
		Use:   "ctq ARGS…",
		Short: "Take the command line of convert_to_quant",
		Long: `Take the command line of convert_to_quant 1.3.4, and write the file that it
writes on the processor with --simple, byte for byte. Biases keep their values,
to which it adds noise. An existing output is replaced, as there.

Two options more: --progress MODE and --metrics FILE, as of quantize.`,
		Example: `  tensorpress ctq -i model.safetensors -o small.safetensors --simple --int8
  tensorpress ctq -i flux2.safetensors --simple --flux2`,
		DisableFlagParsing: true,
		Args:               c.parse,
	}, "0 1 2 3 130", c.convert)
}

// ctqCommand is a parsed command line of convert_to_quant.
type ctqCommand struct {
	parsed *ctq.Command
	run    runFlags
}

func (c *ctqCommand) parse(_ *cobra.Command, args []string) (err error) {
	c.run = runFlags{memory: size{bytes: defaultMemory}, progress: "auto"}
	if args, err = c.own(args); err == nil {
		c.parsed, err = ctq.Parse(args)
	}
	return err
}

// own takes out the options that convert_to_quant does not have.
func (c *ctqCommand) own(args []string) (rest []string, err error) {
	for i := 0; i < len(args); i++ {
		name, value, given := strings.Cut(args[i], "=")
		if name != "--progress" && name != "--metrics" {
			rest = append(rest, args[i])
			continue
		}
		if !given {
			if i++; i == len(args) {
				return nil, fmt.Errorf("%s needs a value", name)
			}
			value = args[i]
		}
		if name == "--metrics" {
			c.run.metrics = value
		} else if err := c.run.progress.Set(value); err != nil {
			return nil, fmt.Errorf("--progress %s: %w", value, err)
		}
	}
	return rest, nil
}

func (c *ctqCommand) convert(cmd *cobra.Command, _ []string) error {
	if sections := c.parsed.Help(); sections != nil {
		printHelp(cmd.OutOrStdout(), cmd)
		printCTQ(cmd.OutOrStdout(), sections)
		return nil
	}
	run := &c.run
	if err := run.watch(cmd, nil); err != nil {
		return err
	}
	follow := run.start(cmd.ErrOrStderr())
	r, err := convert.CTQ(cmd.Context(), c.parsed, engine.Resources{Memory: run.memory.bytes, Progress: follow.update})
	follow.end(err == nil)
	return run.finish(cmd, &reportFlag{}, r, err, printDone)
}

// printCTQ lists convert_to_quant's options and what each becomes in tensorpress.
func printCTQ(w io.Writer, sections []ctq.Section) {
	for _, s := range sections {
		fmt.Fprintf(w, "\n%s", fold(s.Title+", and what to write in tensorpress's own words:"))
		for _, o := range s.Options {
			fmt.Fprint(w, fold("  "+strings.Join(o.Names, ", ")), fold("      "+strings.ReplaceAll(o.Ours, "`", "")))
		}
	}
}
