// Command crictl asks a container runtime over the CRI what kubeadm and an operator need to know.
//
// Debian 12 has no cri-tools. This is compiled inside the Kubernetes source tree, whose vendored CRI client it uses, and
// takes the same arguments as cri-tools' program for the subcommands it has. It speaks runtime.v1alpha2, the CRI
// version of Kubernetes 1.20, which containerd 1.x serves.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1alpha2"
)

const defaultEndpoint = "unix:///run/containerd/containerd.sock"

// Bytes. The kubelet's own client allows 16 MiB per answer; a long image list does not fit gRPC's default of 4 MiB.
const maxAnswer = 16 << 20

// shortID is how many characters of an ID a table shows.
const shortID = 13

type client struct {
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
}

type command struct {
	arguments string
	summary   string
	run       func(ctx context.Context, c client, args []string) error
}

var commands = map[string]command{
	"version":  {"", "name and version of the runtime", version},
	"info":     {"", "status of the runtime as JSON", info},
	"images":   {"[-q]", "images in the store", listImages},
	"inspecti": {"IMAGE...", "one image as JSON; an error if it is not in the store", inspectImages},
	"pull":     {"IMAGE", "fetch an image, unless the store has it", pull},
	"pods":     {"[-q]", "pod sandboxes", listPods},
	"ps":       {"[-a] [-q]", "running containers, with -a all", listContainers},
	"stopp":    {"POD...", "stop pod sandboxes", stopPods},
	"rmp":      {"[-f] POD...", "remove pod sandboxes, with -f running ones too", removePods},
}

func main() {
	flags := flag.NewFlagSet("crictl", flag.ExitOnError)
	endpoint := os.Getenv("CONTAINER_RUNTIME_ENDPOINT")
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	imageEndpoint := ""
	timeout := 4 * time.Minute
	for _, name := range []string{"r", "runtime-endpoint"} {
		flags.StringVar(&endpoint, name, endpoint, "socket of the container runtime")
	}
	for _, name := range []string{"i", "image-endpoint"} {
		flags.StringVar(&imageEndpoint, name, imageEndpoint, "socket of the image service, if it is another")
	}
	for _, name := range []string{"t", "timeout"} {
		flags.DurationVar(&timeout, name, timeout, "how long to wait for an answer")
	}
	flags.Usage = func() { usage(flags) }
	// ExitOnError: Parse does not return an error.
	_ = flags.Parse(os.Args[1:])
	if flags.NArg() == 0 {
		usage(flags)
		os.Exit(2)
	}
	chosen, known := commands[flags.Arg(0)]
	if !known {
		fmt.Fprintf(os.Stderr, "crictl: there is no subcommand %q in this build; it has %s\n",
			flags.Arg(0), strings.Join(names(), ", "))
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := connect(ctx, endpoint, imageEndpoint)
	if err == nil {
		err = chosen.run(ctx, c, flags.Args()[1:])
	}
	if err != nil {
		cancel()
		fmt.Fprintf(os.Stderr, "crictl: %v\n", err)
		os.Exit(1)
	}
}

func names() []string {
	all := make([]string, 0, len(commands))
	for name := range commands {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}

func usage(flags *flag.FlagSet) {
	fmt.Fprintln(os.Stderr, "usage: crictl [OPTION...] SUBCOMMAND [ARGUMENT...]")
	for _, name := range names() {
		fmt.Fprintf(os.Stderr, "  %-9s %-12s %s\n", name, commands[name].arguments, commands[name].summary)
	}
	flags.PrintDefaults()
}

// connect dials both services; an empty image endpoint means the runtime's own.
func connect(ctx context.Context, endpoint, imageEndpoint string) (client, error) {
	runtimeConnection, err := dial(ctx, endpoint)
	if err != nil {
		return client{}, err
	}
	imageConnection := runtimeConnection
	if imageEndpoint != "" && imageEndpoint != endpoint {
		if imageConnection, err = dial(ctx, imageEndpoint); err != nil {
			return client{}, err
		}
	}
	return client{cri.NewRuntimeServiceClient(runtimeConnection), cri.NewImageServiceClient(imageConnection)}, nil
}

func dial(ctx context.Context, endpoint string) (*grpc.ClientConn, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("endpoint %q is not a socket; give it as unix:///path", endpoint)
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("no container runtime at %s (%v); is it running?", path, err)
	}
	dialer := func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", address)
	}
	return grpc.DialContext(ctx, path, grpc.WithInsecure(), grpc.WithContextDialer(dialer),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
}

// switches splits leading one-letter switches, each of which must be in allowed, from the operands.
func switches(args []string, allowed string) (map[rune]bool, []string, error) {
	set := map[rune]bool{}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		for _, letter := range strings.TrimLeft(args[0], "-") {
			if !strings.ContainsRune(allowed, letter) {
				return nil, nil, fmt.Errorf("unknown option %q", args[0])
			}
			set[letter] = true
		}
		args = args[1:]
	}
	return set, args, nil
}

func printJSON(value interface{}) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err == nil {
		fmt.Println(string(text))
	}
	return err
}

func abbreviate(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	if len(id) > shortID {
		return id[:shortID]
	}
	return id
}

// table prints rows under a heading, or with quiet only the first column in full.
func table(quiet bool, heading string, rows [][]string) {
	if quiet {
		for _, row := range rows {
			fmt.Println(row[0])
		}
		return
	}
	writer := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(writer, heading)
	for _, row := range rows {
		fmt.Fprintln(writer, abbreviate(row[0])+"\t"+strings.Join(row[1:], "\t"))
	}
	writer.Flush()
}

func version(ctx context.Context, c client, _ []string) error {
	answer, err := c.runtime.Version(ctx, &cri.VersionRequest{})
	if err == nil {
		fmt.Printf("RuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n",
			answer.RuntimeName, answer.RuntimeVersion, answer.RuntimeApiVersion)
	}
	return err
}

func info(ctx context.Context, c client, _ []string) error {
	answer, err := c.runtime.Status(ctx, &cri.StatusRequest{Verbose: true})
	if err != nil {
		return err
	}
	// The runtime gives each item of Info as a text of its own, most of them JSON.
	document := map[string]interface{}{"status": answer.Status}
	for key, text := range answer.Info {
		var parsed interface{}
		if json.Unmarshal([]byte(text), &parsed) == nil {
			document[key] = parsed
		} else {
			document[key] = text
		}
	}
	return printJSON(document)
}

func listImages(ctx context.Context, c client, args []string) error {
	set, _, err := switches(args, "q")
	if err != nil {
		return err
	}
	answer, err := c.images.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return err
	}
	var rows [][]string
	for _, image := range answer.Images {
		names := image.RepoTags
		if len(names) == 0 {
			names = image.RepoDigests
		}
		rows = append(rows, []string{image.Id, fmt.Sprintf("%d", image.Size_), strings.Join(names, " ")})
	}
	table(set['q'], "IMAGE ID\tBYTES\tNAME", rows)
	return nil
}

func imageStatus(ctx context.Context, c client, name string) (*cri.Image, error) {
	answer, err := c.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
	if err != nil {
		return nil, err
	}
	return answer.Image, nil
}

func inspectImages(ctx context.Context, c client, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("inspecti needs the name or ID of an image")
	}
	for _, name := range args {
		image, err := imageStatus(ctx, c, name)
		if err != nil {
			return err
		}
		if image == nil {
			return fmt.Errorf("no image %q in the store", name)
		}
		if err := printJSON(map[string]interface{}{"status": image}); err != nil {
			return err
		}
	}
	return nil
}

// pull leaves an image alone that is in the store: here images come from an archive and there is no registry to ask.
func pull(ctx context.Context, c client, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("pull needs the name of one image")
	}
	image, err := imageStatus(ctx, c, args[0])
	if err != nil {
		return err
	}
	if image != nil {
		fmt.Printf("Image is up to date for %s\n", image.Id)
		return nil
	}
	answer, err := c.images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: args[0]}})
	if err == nil {
		fmt.Printf("Image is up to date for %s\n", answer.ImageRef)
	}
	return err
}

func listPods(ctx context.Context, c client, args []string) error {
	set, _, err := switches(args, "q")
	if err != nil {
		return err
	}
	answer, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	var rows [][]string
	for _, pod := range answer.Items {
		rows = append(rows, []string{pod.Id, strings.TrimPrefix(pod.State.String(), "SANDBOX_"),
			pod.Metadata.GetNamespace(), pod.Metadata.GetName()})
	}
	table(set['q'], "POD ID\tSTATE\tNAMESPACE\tNAME", rows)
	return nil
}

func listContainers(ctx context.Context, c client, args []string) error {
	set, _, err := switches(args, "aq")
	if err != nil {
		return err
	}
	request := &cri.ListContainersRequest{}
	if !set['a'] {
		running := &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}
		request.Filter = &cri.ContainerFilter{State: running}
	}
	answer, err := c.runtime.ListContainers(ctx, request)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, container := range answer.Containers {
		rows = append(rows, []string{container.Id, strings.TrimPrefix(container.State.String(), "CONTAINER_"),
			container.Metadata.GetName(), fmt.Sprintf("%d", container.Metadata.GetAttempt()),
			abbreviate(container.PodSandboxId), container.Labels["io.kubernetes.pod.name"]})
	}
	table(set['q'], "CONTAINER ID\tSTATE\tNAME\tATTEMPT\tPOD ID\tPOD", rows)
	return nil
}

func stopPods(ctx context.Context, c client, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("stopp needs the ID of a pod")
	}
	for _, id := range args {
		if _, err := c.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
			return fmt.Errorf("stopping pod %s: %v", id, err)
		}
		fmt.Printf("Stopped sandbox %s\n", id)
	}
	return nil
}

func removePods(ctx context.Context, c client, args []string) error {
	set, ids, err := switches(args, "f")
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		return fmt.Errorf("rmp needs the ID of a pod")
	}
	for _, id := range ids {
		answer, err := c.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id})
		if err != nil {
			return fmt.Errorf("pod %s: %v", id, err)
		}
		if answer.Status.State == cri.PodSandboxState_SANDBOX_READY {
			if !set['f'] {
				return fmt.Errorf("pod %s is running; stop it first or give -f", id)
			}
			if _, err := c.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
				return fmt.Errorf("stopping pod %s: %v", id, err)
			}
		}
		if _, err := c.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			return fmt.Errorf("removing pod %s: %v", id, err)
		}
		fmt.Printf("Removed sandbox %s\n", id)
	}
	return nil
}
