#!/bin/sh
# packages: sees to it that what p2pd-lua needs is there. Prints nothing, and takes some hundredths of a second, when it is.
#
#   packages.sh PURPOSE...         installs what is missing, on Debian 12 and 13, Ubuntu 24.04 and their kin
#   packages.sh --list PURPOSE...  only lists what is missing
#
# Purposes: build demo lab test bench fuzz docs. Whether a thing is there is asked of pkg-config, the compiler, Lua and
# the PATH, not of the distribution, so that what was installed by hand counts. Exit status 1: something is missing still.
#
# mosquitto, coturn and chrony are services too, and their packages start them. The tests start their own, elsewhere, so
# a service that this script brought is stopped and disabled again; one that was there before is left alone. Only chrony
# goes on where its package took the place of what kept the machine's clock.
export LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where Debian has servers, though not in a user's PATH

# purposes | how it is looked for: kind names (one of them is enough) | package | what it is
needs='
build | command cc gcc clang          | gcc              | a C compiler
build | header  stdio.h               | libc6-dev        | the C library'\''s headers
build | command make                  | make             | GNU make
build | command pkg-config            | pkg-config       | pkg-config
build | command lua5.4                | lua5.4           | Lua 5.4
build | library lua5.4 lua-5.4 lua54  | liblua5.4-dev    | Lua 5.4 as a library
build | library libuv                 | libuv1-dev       | libuv, the event loop
build | library lua5.4-luv libluv luv | lua-luv-dev      | luv, libuv for Lua, as a library
build | lua     luv                   | lua-luv          | luv, libuv for Lua
build | lua     cjson                 | lua-cjson        | cjson, JSON for Lua
build | header  MQTTAsync.h           | libpaho-mqtt-dev | paho.mqtt.c, the MQTT client
build | library openssl               | libssl-dev       | OpenSSL 3
build | header  miniupnpc/miniupnpc.h | libminiupnpc-dev | miniupnpc, the UPnP IGD client
build | header  natpmp.h              | libnatpmp-dev    | libnatpmp, the NAT-PMP client
build | library readline              | libreadline-dev  | readline, line editing
demo lab test | command mosquitto     | mosquitto        | mosquitto, the MQTT broker
lab test | command turnserver         | coturn           | coturn, the STUN and TURN server
lab test | command chronyd            | chrony           | chrony, the NTP server
lab test | nftables miniupnpd         | miniupnpd-nftables | miniupnpd for nftables, which maps ports
lab test | command nft                | nftables         | nft, for what miniupnpd maps
lab test | command unshare            | util-linux       | unshare, which makes namespaces
lab test | command nsenter            | util-linux       | nsenter, which goes into namespaces
lab test | command setpriv            | util-linux       | setpriv, which gives capabilities up
lab test bench | command ip           | iproute2         | ip, for network namespaces
test  | command ping                  | iputils-ping     | ping
test  | command natpmpc               | natpmpc          | natpmpc, the NAT-PMP client
test  | command upnpc                 | miniupnpc        | upnpc, the UPnP IGD client
test  | command mosquitto_pub         | mosquitto-clients | mosquitto_pub, which publishes
test  | lua     busted.runner         | lua-busted       | busted, the test runner
test  | command luacheck              | lua-check        | luacheck, the linter of Lua
test  | command clang                 | clang            | clang, the second compiler
test  | command clang-format          | clang-format     | clang-format
test  | command clang-tidy            | clang-tidy       | clang-tidy
test bench | command openssl          | openssl          | the openssl program
test docs | command lowdown           | lowdown          | lowdown, which makes HTML and manual pages of Markdown
test  | command mandoc                | mandoc           | mandoc, which shows and judges manual pages
bench | command node                  | nodejs           | Node.js, to compare with
bench | command socat                 | socat            | socat, to compare with
fuzz  | command clang                 | clang            | clang
fuzz  | fuzzer  libclang_rt.fuzzer    | libclang-rt-dev  | clang'\''s fuzzer
'

there() {
  kind=$1
  shift
  for name in "$@"; do
    case $kind in
      command) command -v "$name" ;;
      library) pkg-config --exists "$name" ;;
      header) [ -e "/usr/include/$name" ] || echo "#include <$name>" | ${CC:-cc} $CPPFLAGS -E - ;;
      lua) lua5.4 -e "assert(package.searchpath('$name', package.path) or package.searchpath('$name', package.cpath))" ;;
      nftables) "$name" --version | grep nftables ;; # another package has it for iptables
      fuzzer) ls "$(clang -print-runtime-dir)" | grep -q "$name" ;;
    esac >/dev/null 2>&1 && return 0
  done
  return 1
}

# Sets `missing`, the packages, and `listed`, what each is and for which purpose.
look() {
  missing= listed=
  while IFS='|' read -r these test package what; do
    package=${package# }
    package=${package%% *}
    for purpose in $purposes; do
      case " $these " in *" $purpose "*) ;; *) continue ;; esac
      there $test && continue
      case " $missing " in *" $package "*) ;; *) missing="$missing${missing:+ }$package" ;; esac
      listed="$listed$(printf '  %-6s %-18s %s' $purpose $package "${what# }")
"
      break
    done
  done <<END
$needs
END
}

list() {
  printf '%s\n%s' "p2pd-lua: this is missing (with the name of Debian's package):" "$listed"
}

# What keeps the machine's clock: chrony's package cannot be beside one of these.
clock_keeper() {
  for package in systemd-timesyncd ntpsec ntp openntpd; do
    dpkg -s $package 2>/dev/null | grep -q '^Status: .* installed' && echo $package
  done
}

services() {
  for service in mosquitto coturn chrony; do
    case " $missing " in *" $service "*) ;; *) continue ;; esac
    if [ $service = chrony ] && [ -n "$replaced" ]; then
      echo "p2pd-lua: chrony now keeps this machine's clock, since its package replaced $replaced"
      continue
    fi
    # Also where no init runs, as in a folder that will be a machine's: both disable there, too.
    $sudo systemctl disable $service >/dev/null 2>&1
    $sudo update-rc.d $service disable >/dev/null 2>&1
    if [ -d /run/systemd/system ]; then
      $sudo systemctl stop $service >/dev/null 2>&1
    else
      $sudo invoke-rc.d $service stop >/dev/null 2>&1
    fi
    echo "p2pd-lua: the service $service, which came with its package, is stopped: the tests start their own"
  done
}

apt() {
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" </dev/null
}

install() {
  sudo=
  if [ "$(id -u)" != 0 ]; then
    sudo=sudo
    if ! command -v sudo >/dev/null 2>&1; then
      echo "p2pd-lua: there is no sudo; as root: apt-get install --no-install-recommends $missing"
      return 1
    fi
  fi
  echo "p2pd-lua: installing with ${sudo:+$sudo }apt-get: $missing"
  for package in $missing; do # package lists that were never fetched, or are too old to know one
    apt-cache show "$package" >/dev/null 2>&1 || { apt update || return 1; break; }
  done
  replaced=$(clock_keeper)
  apt install -y --no-install-recommends $missing || { apt update && apt install -y --no-install-recommends $missing; }
  result=$?
  services
  return $result
}

only_list=
[ "$1" = --list ] && only_list=1 && shift
purposes=${*:-build}
look
[ -z "$missing" ] && exit 0
if [ -z "$only_list" ]; then
  family=$(. /etc/os-release 2>/dev/null; echo " $ID $ID_LIKE ")
  case $family in
    *" debian "* | *" ubuntu "*)
      install && { look; [ -z "$missing" ] && exit 0; } ;;
    *) echo "p2pd-lua: what to install on this distribution ($(. /etc/os-release 2>/dev/null; echo "${PRETTY_NAME:-unknown}")) is not known here." ;;
  esac
fi
list
[ -n "$only_list" ] && echo "\`make packages\` installs it on Debian and Ubuntu."
exit 1
