# frozen_string_literal: true

# The box's own Vagrantfile, which comes before a project's: the disk has no boot loader.
Vagrant.configure("2") do |config|
  # Under software emulation.
  config.vm.boot_timeout = 600

  config.vm.provider :libvirt do |libvirt|
    libvirt.kernel = File.join(__dir__, "vmlinuz")
    libvirt.initrd = File.join(__dir__, "initrd.img")
    libvirt.cmd_line = "console=ttyS0 quiet net.ifnames=0 mitigations=off nowatchdog audit=0 random.trust_cpu=on"
    libvirt.machine_type = "q35"
    # Its emulation costs more than everything else that keeps the time.
    libvirt.clock_timer name: "hpet", present: "no"
    libvirt.graphics_type = "none"
    libvirt.disk_driver cache: "unsafe"
  end
end
