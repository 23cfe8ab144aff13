"""Vagrant and libvirt in namespaces of their own: the Vagrantfile rehearsed where no box can be fetched."""
