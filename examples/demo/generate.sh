#!/bin/sh
# Makes data/: a list of stations and one year of four-hourly readings of each. The same bytes
# every time: no clock, and a random number generator of its own.
set -eu
export LC_ALL=C
cd "$(dirname "$0")"
mkdir -p data/readings

cat >data/stations.csv <<'CSV'
id,name,region,elevation_m,unit,status
alder,Alder Quay,coast,4,C,active
birch,Birch Head,coast,61,C,active
cedar,Cedar Lock,plain,38,C,active
dogwood,Dogwood Mill,plain,52,F,active
elm,Elm Crossing,plain,47,C,active
fir,Fir Saddle,hills,812,C,active
ginkgo,Ginkgo Terrace,hills,455,C,active
hazel,Hazel Ford,plain,71,C,closed
ivy,Ivy Island,coast,9,C,active
juniper,Juniper Pass,hills,1204,C,active
kauri,Kauri Point,coast,33,F,active
larch,Larch Top,peaks,2310,C,active
maple,Maple Weir,plain,29,C,closed
nutmeg,Nutmeg Ridge,peaks,1987,C,active
CSV

# Columns: hour of the year, temperature (the sensor's unit), relative humidity. Sensors fail:
# -99.9 is their fault code, an empty field is a reading that was lost, and some rows come twice.
readings() { # seed elevation_m unit
    awk -v seed="$1" -v elevation="$2" -v unit="$3" '
        function chance() {
            seed = (seed * 16807) % 2147483647
            return seed / 2147483647
        }
        BEGIN {
            turn = 8 * atan2(1, 1)
            print "hour,temperature,humidity"
            for (warm = 0; warm < 20; warm++) chance()
            for (hour = 0; hour < 8760; hour += 4) {
                season = -cos(turn * (hour / 24 - 20) / 365)
                daytime = -cos(turn * (hour % 24 - 3) / 24)
                weather = 0.97 * weather + 1.1 * (chance() + chance() - 1)
                celsius = 11 - elevation / 154 + 9 * season + 4 * daytime + weather
                humidity = 68 - 14 * daytime + 8 * (chance() - 0.5)
                row = sprintf("%d,%.1f,%d", hour, \
                    unit == "F" ? celsius * 1.8 + 32 : celsius, humidity)
                fault = chance()
                if (fault < 0.006) row = hour ",-99.9," int(humidity)
                else if (fault < 0.010) row = hour ",," int(humidity)
                print row
                if (fault > 0.995) print row
            }
        }'
}

seed=0
tail -n +2 data/stations.csv | while IFS=, read -r id _ _ elevation unit _; do
    seed=$((seed + 1000003))
    readings "$seed" "$elevation" "$unit" >"data/readings/$id.csv"
done
